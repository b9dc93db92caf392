"""The JavaScript that runs a seed program, and the lines it writes for us.

It imports the seed, calls its default export with the tag `sql` and the environment's name, and writes a line for each
statement it yields: what stands in the template and the values between, never one text. Each line begins with a mark
that the caller chose; what the seed prints itself goes to standard error. It runs in node, deno, bun and tsx alike.
With the last statement it ends the process, whatever timers and connections the seed has left open.
"""

SOURCE = r"""
import process from "node:process";
import { pathToFileURL } from "node:url";

const [seed, env, mark] = process.argv.slice(2);
const address = pathToFileURL(seed).href;
Error.stackTraceLimit = 50;

const write = process.stdout.write.bind(process.stdout);
// A child of the seed may have left half a line in the stream: ours begin with a line end.
const tell = (message, then) => write("\n" + mark + JSON.stringify(message) + "\n", then);
const say = console.error.bind(console);
process.stdout.write = process.stderr.write.bind(process.stderr);
for (const name of ["log", "info", "debug", "dir", "table"]) console[name] = say;

// The first line of the seed in a stack, and its column.
function place(stack) {
  for (const name of [address, seed]) {
    for (const line of String(stack).split("\n")) {
      const at = line.indexOf(name + ":");
      const found = at < 0 ? null : /^(\d+)(?::(\d+))?/.exec(line.slice(at + name.length + 1));
      if (found) return { line: Number(found[1]), column: found[2] ? Number(found[2]) : null };
    }
  }
  return { line: null, column: null };
}

class Fragment {
  constructor(message) {
    this.message = message;
  }
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    !(value instanceof Date) && !(value instanceof Uint8Array) && !(value instanceof Fragment);
}

function holdsObjects(list) {
  return list.some((item) => Array.isArray(item) ? holdsObjects(item) : isObject(item));
}

function encode(value) {
  if (value === null) return { t: "null" };
  if (value instanceof Fragment) return value.message;
  if (value instanceof Date) return { t: "text", v: value.toISOString() };
  if (value instanceof Uint8Array) return { t: "bytes", v: hex(value) };
  // map() would pass over the holes of a list.
  if (Array.isArray(value)) return holdsObjects(value) ? json(value) : { t: "array", v: Array.from(value, element) };
  switch (typeof value) {
    case "string": return { t: "text", v: value };
    case "number": return { t: "number", v: String(value) };
    case "bigint": return { t: "number", v: String(value) };
    case "boolean": return { t: "boolean", v: value };
    case "object": return typeof value.toJSON === "function" ? encode(value.toJSON()) : json(value);
    case "undefined": throw new TypeError("a value is undefined; for NULL give null");
    default: throw new TypeError(`a ${typeof value} is no value for SQL`);
  }
}

function element(item) {
  if (item instanceof Fragment && item.message.t !== "json") {
    throw new TypeError("in a list of values there can be no SQL");
  }
  return encode(item);
}

// What JSON.stringify would write as {}: a Map, a Promise that nobody waited for...
function refuseStrange(_, value) {
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (isObject(value) && kind !== "Object") throw new TypeError(`a ${kind} is no value for SQL`);
  return value;
}

function json(value) {
  const text = JSON.stringify(value, refuseStrange);
  if (text === undefined) throw new TypeError("this value cannot be written as JSON");
  return { t: "json", v: text };
}

function sql(parts, ...values) {
  if (!Array.isArray(parts) || !Array.isArray(parts.raw)) {
    throw new TypeError("sql is a tag: write sql`INSERT ...`, not sql(...)");
  }
  if (parts.includes(undefined)) {
    throw new SyntaxError("an escape in this template means nothing: double the backslash");
  }
  return new Fragment({ t: "sql", parts: [...parts], values: values.map(encode), ...place(new Error().stack) });
}
sql.id = (...names) => {
  if (!names.length || names.some((name) => typeof name !== "string")) throw new TypeError("sql.id takes names");
  return new Fragment({ t: "name", v: names });
};
sql.json = (value) => new Fragment(json(value));

let count = 0;

function send(statement) {
  if (!(statement instanceof Fragment) || statement.message.t !== "sql") {
    throw new TypeError("a seed yields sql`...` and nothing else");
  }
  count += 1;
  tell(statement.message);
}

async function run() {
  const module = await import(address);
  const main = module.default?.default ?? module.default;
  if (typeof main !== "function") throw new TypeError("the seed has no default export that is a function");
  const result = await main(sql, env);
  if (result === undefined || result === null) return;
  if (result instanceof Fragment) return send(result);
  if (typeof result[Symbol.asyncIterator] !== "function" && typeof result[Symbol.iterator] !== "function") {
    throw new TypeError("the seed's function returns neither a generator nor a list of statements");
  }
  for await (const statement of result) send(statement);
}

let over = false;

function finish(message) {
  if (over) return;
  over = true;
  tell(message, () => process.exit(0));
}

function fail(error) {
  const known = error instanceof Error;
  const text = known ? `${error.name}: ${error.message}` : String(error);
  finish({ t: "error", v: text, ...place(known ? error.stack : "") });
}

process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);
// A promise that failed unheard is told of before the timer.
run().then(() => setTimeout(() => finish({ t: "end", count }), 0), fail);
"""
