// Shows the service's own document, with requests that can be tried on this host.
window.addEventListener("load", () => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", follow);
  follow();

  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#document",
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    filter: true,
    tryItOutEnabled: true,
    // An API key is forgotten with the tab, and nothing is sent to another host.
    persistAuthorization: false,
    validatorUrl: null,
  });
});
