// Dark where the browser is, unless a page that shows this one in a frame says which theme it has.
const dark = [...document.styleSheets[0].cssRules].find((rule) => rule.media);
addEventListener("message", ({ data }) => {
  if (!data?.theme) return;
  dark.media.mediaText = data.theme === "dark" ? "screen" : "not all";
  document.documentElement.style.colorScheme = data.theme;
});
