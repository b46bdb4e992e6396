"use strict";
// A picture is in the page once: what saves it takes it from where it is shown.
for (const link of document.querySelectorAll("a[data-picture]")) {
  link.href = document.getElementById(link.dataset.picture).src;
}
