// The page itself: colours, paper, copying, where the reader is.
document.documentElement.classList.add("scripted");

// Page colours: follow the system until the reader chooses.
const theme = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
function isDark() {
  return (document.documentElement.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
}
function labelTheme() {
  theme.textContent = isDark() ? "Light page" : "Dark page";
  theme.setAttribute("aria-pressed", String(isDark()));
}
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  labelTheme();
});
systemDark.addEventListener("change", labelTheme);
labelTheme();

// Paper cannot be unfolded, so print everything except the numbers under charts, which the style sheet leaves out.
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details.part:not([open])")];
  for (const item of unfolded) item.open = true;
});
addEventListener("afterprint", () => {
  for (const item of unfolded) item.open = false;
});

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => {
    const text = button.nextElementSibling;
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
    const select = () => { getSelection().selectAllChildren(text); };
    if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).then(done, select);
    else select();
  });
}

// Mark the section being read.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "0px 0px -70% 0px" });
for (const section of document.querySelectorAll("main section")) watcher.observe(section);

