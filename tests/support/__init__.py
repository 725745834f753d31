"""What several test files share; importable because pyproject.toml puts ``tests`` on the path."""
