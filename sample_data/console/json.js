// Where a text stops being JSON (RFC 8259), which browsers tell each in its own words or not at all.

const TOKEN = /[ \t\r\n]*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?![\w.+-]))/y;

// What may come next: a value, a name, a colon, or the comma or end after a value.
function errorAt(text) {
  const open = [];
  let wants = "value";
  let isFirst = false;
  TOKEN.lastIndex = 0;
  for (;;) {
    const from = TOKEN.lastIndex;
    const token = TOKEN.exec(text);
    const at = token ? TOKEN.lastIndex - (token[1] ?? token[2] ?? token[3]).length : from + /^[ \t\r\n]*/.exec(text.slice(from))[0].length;
    if (wants === "end") return at === text.length ? null : at;
    if (!token) return at;
    const [, mark, string] = token;
    if (wants === "colon") {
      if (mark !== ":") return at;
      wants = "value";
      isFirst = false;
    } else if (wants === "comma") {
      if (mark === ",") wants = open.at(-1) === "{" ? "name" : "value";
      else if (mark && mark === (open.at(-1) === "{" ? "}" : "]")) wants = (open.pop(), open.length) ? "comma" : "end";
      else return at;
      isFirst = false;
    } else if (isFirst && mark === (wants === "name" ? "}" : "]")) {
      open.pop();
      wants = open.length ? "comma" : "end";
      isFirst = false;
    } else if (wants === "name") {
      if (!string) return at;
      wants = "colon";
    } else if (mark === "{" || mark === "[") {
      open.push(mark);
      wants = mark === "{" ? "name" : "value";
      isFirst = true;
    } else if (mark) return at;
    else {
      wants = open.length ? "comma" : "end";
      isFirst = false;
    }
  }
}

// The browser's own answer comes at once, also for many megabytes.
function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// What to tell of a text that is no JSON, and where; null of one that is.
export function mistakeIn(text) {
  const at = isJson(text) ? null : errorAt(text);
  if (at === null) return null;
  const before = text.slice(0, at).split("\n");
  return { at, words: `Line ${before.length}, column ${before.at(-1).length + 1}: this is no JSON.` };
}
