// The app on Node's own server: `node app.js PORT`.
const fs = require("fs");
const http = require("http");

function path(url) {
  try {
    return decodeURIComponent(new URL(url, "http://x").pathname);
  } catch {
    return url;
  }
}

const all = (value) => (value === undefined ? [] : [value].flat());
http
  .createServer((request, response) => {
    const headers = request.headers;
    const seen = {
      method: request.method,
      path: path(request.url),
      role: all(headers["x-role"]),
      identity: all(headers["x-forwarded-client-cert"]),
      attempt: headers["x-attempt"] || "",
    };
    fs.appendFileSync(process.env.HOSTILE_LOG, JSON.stringify(seen) + "\n");
    response.writeHead(200, { "Content-Length": 2 });
    response.end(request.method === "HEAD" ? "" : "ok");
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
