"""Pixels in and out of files, pictures of them, and synthetic landscapes."""
