// Builds dist/ from src/. With --check it writes nothing, and fails if dist/ is not what src/ builds.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { brotliCompressSync, brotliDecompressSync, constants, gunzipSync, gzipSync } from "node:zlib";

const here = import.meta.dirname;
const dist = join(here, "dist");
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

const extension = (name) => name.slice(name.lastIndexOf("."));
const hash = (body) => createHash("sha256").update(body).digest("hex").slice(0, 10);

/** The files of the page by name, uncompressed. */
async function built() {
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: { app: "src/main.tsx", style: "src/style.css" },
    outdir: "dist/assets",
    bundle: true,
    format: "esm",
    target: ["es2022", "chrome109", "firefox115", "safari16.4"],
    jsx: "automatic",
    jsxImportSource: "preact",
    minify: true,
    legalComments: "eof",
    define: { "process.env.NODE_ENV": '"production"' },
    write: false,
  });
  const sources = outputFiles.map((file) => [basename(file.path), Buffer.from(file.contents)]);
  sources.push(["icon.svg", await readFile(join(here, "src/icon.svg"))]);

  const files = new Map();
  let page = await readFile(join(here, "src/index.html"), "utf8");
  for (const [name, body] of sources) {
    const named = `assets/${name.replace(".", `-${hash(body)}.`)}`;
    page = page.replaceAll(`%${name}%`, `/${named}`);
    files.set(named, body);
  }
  files.set("index.html", Buffer.from(page));
  return new Map([...files].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** What is bundled is other people's work: their licences go along. */
async function licences() {
  const texts = [];
  for (const name of ["@preact/signals", "@preact/signals-core", "dompurify", "marked", "preact"]) {
    const folder = join(here, "node_modules", name);
    const file = (await readdir(folder)).find((one) => /^licen[cs]e(\.(md|txt))?$/i.test(one));
    const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    texts.push(`${name} ${version}\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`);
  }
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}

const brotli = (body) =>
  brotliCompressSync(body, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: body.length },
  });

async function write(files, licenceTexts) {
  await rm(dist, { recursive: true, force: true });
  for (const [name, body] of files) {
    await mkdir(dirname(join(dist, name)), { recursive: true });
    await writeFile(join(dist, name), body);
    await writeFile(join(dist, `${name}.br`), brotli(body));
    await writeFile(join(dist, `${name}.gz`), gzipSync(body, { level: 9 }));
  }
  const manifest = Object.fromEntries([...files.keys()].map((name) => [name, TYPES[extension(name)]]));
  await writeFile(join(dist, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  await writeFile(join(dist, "LICENCES.txt"), licenceTexts);
}

async function check(files, licenceTexts) {
  const wrong = [];
  const read = async (name) => readFile(join(dist, name)).catch(() => Buffer.alloc(0));
  for (const [name, body] of files) {
    if (!(await read(name)).equals(body)) wrong.push(name);
    // The compressed bytes may differ from one release of Node to the next; what they hold may not.
    if (!brotliDecompressSync(await read(`${name}.br`)).equals(body)) wrong.push(`${name}.br`);
    if (!gunzipSync(await read(`${name}.gz`)).equals(body)) wrong.push(`${name}.gz`);
  }
  if ((await read("LICENCES.txt")).toString() !== licenceTexts) wrong.push("LICENCES.txt");
  const known = new Set([...files.keys()].flatMap((name) => [name, `${name}.br`, `${name}.gz`]));
  for (const name of ["manifest.json", "LICENCES.txt"]) known.add(name);
  for (const entry of await readdir(dist, { recursive: true, withFileTypes: true })) {
    const name = join(entry.parentPath, entry.name).slice(dist.length + 1);
    if (entry.isFile() && !known.has(name)) wrong.push(`${name} (left over)`);
  }
  if (JSON.stringify(Object.keys(JSON.parse(await read("manifest.json")))) !== JSON.stringify([...files.keys()])) {
    wrong.push("manifest.json");
  }
  return wrong;
}

const files = await built();
const licenceTexts = await licences();
if (process.argv.includes("--check")) {
  const wrong = await check(files, licenceTexts).catch((error) => [String(error)]);
  if (wrong.length > 0) {
    console.error(`entrypoints/web/dist is not what src builds: ${wrong.join(", ")}. Run: make web`);
    process.exit(1);
  }
} else {
  await write(files, licenceTexts);
}
const total = [...files.values()].reduce((sum, body) => sum + brotli(body).length, 0);
console.log(`${files.size} files, ${(total / 1024).toFixed(1)} KB compressed`);
