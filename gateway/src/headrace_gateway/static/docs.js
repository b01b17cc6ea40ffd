SwaggerUIBundle({
  url: "/openapi-pipeline-engine.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null, // the usual one is on the internet
});
