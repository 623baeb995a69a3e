// Serves the page while it is being changed: the files as they are now, and everything else from a running ambassador.
//
//     ambassador --web 127.0.0.1:9700 ...
//     npm run dev -- 127.0.0.1:9700
import { context } from "esbuild";
import { createReadStream } from "node:fs";
import { createServer, request } from "node:http";

const [host, port] = (process.argv[2] ?? "127.0.0.1:9700").split(":");
const own = Number(process.argv[3] ?? 9800);
const build = await context({
  entryPoints: { app: "src/main.tsx" }, outdir: ".", bundle: true, format: "esm", jsx: "automatic", jsxImportSource: "preact",
  write: false, logLevel: "warning",
});
const files = { "/": ["index.html", "text/html"], "/app.css": ["style.css", "text/css"], "/icon.svg": ["icon.svg", "image/svg+xml"] };

createServer(async (incoming, outgoing) => {
  outgoing.setHeader("content-security-policy", "default-src 'self'");
  if (incoming.url === "/app.js") {
    const { outputFiles } = await build.rebuild();
    outgoing.writeHead(200, { "content-type": "text/javascript" }).end(outputFiles[0].contents);
  } else if (files[incoming.url]) {
    const [path, type] = files[incoming.url];
    createReadStream(path).pipe(outgoing.writeHead(200, { "content-type": type }));
  } else {
    const headers = { ...incoming.headers, host: `${host}:${port}` };
    delete headers.origin;
    const forwarded = request({ host, port, path: incoming.url, method: incoming.method, headers }, (response) => {
      response.on("error", () => outgoing.destroy());
      response.pipe(outgoing.writeHead(response.statusCode, response.headers));
    });
    forwarded.on("error", () => outgoing.destroy());
    outgoing.on("close", () => forwarded.destroy());
    incoming.pipe(forwarded);
  }
}).listen(own, "127.0.0.1", () => console.log(`http://127.0.0.1:${own}/`));
