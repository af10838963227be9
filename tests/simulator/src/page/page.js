// The page of the Slack simulator: shows what one person sees, and does what they do.
//
// Everything that comes from the app is put into the page as text, never as markup. What is to look like Slack's own
// markup is parsed here, by Slack's rules, into elements.

const $ = (id) => document.getElementById(id);

/** What was last heard from the simulator. */
let state = null;
/** Who looks, at which channel, and at which thread. */
const place = { user: "", channel: "", thread: null };
/** The times up to which each person has seen each channel. */
const seen = new Map();
/** Ends the call that waits for news, so that another person's can be made. */
let waiting = new AbortController();

// ── Small help ──────────────────────────────────────────────────────────────────────────────────────────────────

/** An element with attributes; those that are null or false are left out, functions become listeners. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

async function ask(what, body) {
  const answer = await fetch(`/_sim/${what}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user: place.user, ...body }),
  });
  return answer.json();
}

/** A small drawing beside words that say the same. */
function icon(name) {
  const path = {
    eye: "M1 8c2-3.5 4.5-5 7-5s5 1.5 7 5c-2 3.5-4.5 5-7 5s-5-1.5-7-5zm7 2.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z",
    lock: "M4 7V5a4 4 0 0 1 8 0v2h1v7H3V7zm2 0h4V5a2 2 0 0 0-4 0z",
    picture: "M1 2h14v12H1zm2 9.5h10L9.5 6 7 9.5 5.5 8z",
  }[name];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" })) svg.setAttribute(key, value);
  const shape = document.createElementNS(svg.namespaceURI, "path");
  shape.setAttribute("d", path);
  shape.setAttribute("fill-rule", "evenodd");
  svg.append(shape);
  return svg;
}

const person = (id) => state.people.find((one) => one.id === id);
const group = (id) => state.groups.find((one) => one.id === id);
const channel = (id) => state.channels.find((one) => one.id === id);
const nameOf = (id) => (id === state.bot.id ? state.bot.name : person(id)?.name ?? id);

// ── Text as Slack reads it ──────────────────────────────────────────────────────────────────────────────────────

const EMOJI = {
  white_check_mark: "✅", heavy_check_mark: "✔️", x: "❌", no_entry: "⛔", no_entry_sign: "🚫", warning: "⚠️",
  hourglass: "⌛", hourglass_flowing_sand: "⏳", lock: "🔒", mag: "🔍", scissors: "✂️", key: "🔑", pencil2: "✏️", memo: "📝", bell: "🔔",
  rotating_light: "🚨", alarm_clock: "⏰", large_green_circle: "🟢", large_yellow_circle: "🟡", red_circle: "🔴",
  white_circle: "⚪", black_square_button: "🔲", white_large_square: "⬜", ballot_box_with_check: "☑️", eyes: "👀",
  rocket: "🚀", leftwards_arrow_with_hook: "↩️", repeat: "🔁", arrows_counterclockwise: "🔄", tada: "🎉", fire: "🔥",
  heavy_multiplication_x: "✖️", stopwatch: "⏱️", wastebasket: "🗑️", bust_in_silhouette: "👤", busts_in_silhouette: "👥",
  link: "🔗",
};

const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
const withEmoji = (text) => text.replace(/:([a-z0-9_+-]+):/g, (whole, name) => EMOJI[name] ?? whole);

function mention(label, loud, attributes = {}) {
  return element("span", { class: loud ? "mention loud" : "mention", ...attributes }, label);
}

function mentionUser(id) {
  return mention(`@${nameOf(id)}`, id === place.user, { "data-mention": id });
}

function mentionGroup(id) {
  const found = group(id);
  return mention(`@${found?.handle ?? id}`, found?.members.includes(place.user) ?? false, { "data-mention": id });
}

function link(url, label) {
  // Only what a browser may safely open becomes a link.
  const safe = /^(https?:|mailto:)/i.test(url);
  return safe ? element("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, label) : element("span", {}, label);
}

/** `<!date^1700000000^{date_short} at {time}^link|fallback>`, without the brackets. */
function date(seconds, format, fallback) {
  const when = new Date(seconds * 1000);
  if (Number.isNaN(when.getTime())) return fallback;
  const of = (options) => new Intl.DateTimeFormat("en-GB", options).format(when);
  const days = Math.round((new Date(when).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 86_400_000);
  const pretty = (otherwise) => ({ "-1": "yesterday", 0: "today", 1: "tomorrow" })[days] ?? otherwise;
  const parts = {
    date_num: () => of({ year: "numeric", month: "2-digit", day: "2-digit" }).split("/").reverse().join("-"),
    date: () => of({ year: "numeric", month: "long", day: "numeric" }),
    date_short: () => of({ year: "numeric", month: "short", day: "numeric" }),
    date_long: () => of({ weekday: "long", year: "numeric", month: "long", day: "numeric" }),
    time: () => of({ hour: "2-digit", minute: "2-digit" }),
    time_secs: () => of({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
    ago: () => `${Math.max(0, Math.round((Date.now() - when) / 60_000))} minutes ago`,
  };
  for (const name of ["date", "date_short", "date_long"]) parts[`${name}_pretty`] = () => pretty(parts[name]());
  return format.replace(/\{([a-z_]+)\}/g, (whole, name) => parts[name]?.() ?? whole);
}

/** What stands between `<` and `>`. */
function token(inside) {
  const bar = inside.indexOf("|");
  const target = bar < 0 ? inside : inside.slice(0, bar);
  const label = bar < 0 ? null : unescaped(inside.slice(bar + 1));
  if (target.startsWith("@")) return mentionUser(target.slice(1));
  if (target.startsWith("#")) return mention(`#${channel(target.slice(1))?.name ?? label ?? target.slice(1)}`, false);
  if (target.startsWith("!subteam^")) return mentionGroup(target.slice("!subteam^".length));
  if (target.startsWith("!date^")) {
    const [, seconds, format] = target.split("^");
    return element("time", { datetime: seconds }, date(Number(seconds), unescaped(format ?? ""), label ?? ""));
  }
  if (target.startsWith("!")) return mention(`@${target.slice(1)}`, true, { "data-mention": target.slice(1) });
  return link(unescaped(target), label ?? unescaped(target));
}

const isWord = (letter) => letter !== undefined && /[\p{L}\p{N}]/u.test(letter);
const isSpace = (letter) => letter === undefined || /\s/.test(letter);

/** Where a style ends that starts at `from`, or -1. */
function endOfStyle(text, from, mark) {
  for (let at = from + 1; at < text.length && text[at] !== "\n"; at++) {
    if (text[at] === "<") {
      const end = text.indexOf(">", at);
      if (end > 0) at = end;
    } else if (text[at] === mark && at > from + 1 && !isSpace(text[at - 1]) && !isWord(text[at + 1])) {
      return at;
    }
  }
  return -1;
}

/** Text within a line or a few, with its styles and tokens. */
function inline(text) {
  const nodes = [];
  let plain = "";
  const flush = () => {
    if (plain) nodes.push(withEmoji(unescaped(plain)));
    plain = "";
  };
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (letter === "<") {
      const end = text.indexOf(">", at);
      if (end > at + 1) {
        flush();
        nodes.push(token(text.slice(at + 1, end)));
        at = end;
        continue;
      }
    }
    const tag = { "*": "strong", _: "em", "~": "s", "`": "code" }[letter];
    if (tag && !isWord(text[at - 1]) && (tag === "code" || !isSpace(text[at + 1]))) {
      const end = endOfStyle(text, at, letter);
      if (end > 0) {
        flush();
        const inside = text.slice(at + 1, end);
        nodes.push(element(tag, {}, tag === "code" ? unescaped(inside) : inline(inside)));
        at = end;
        continue;
      }
    }
    plain += letter;
  }
  flush();
  return nodes;
}

/** A whole text in Slack's markup: code blocks, quotes, and lines. */
function mrkdwn(text) {
  return text.split("```").flatMap((part, index, parts) => {
    if (index % 2 === 1 && index < parts.length - 1) return element("pre", {}, unescaped(part.replace(/^\n|\n$/g, "")));
    const nodes = [];
    let quoted = [];
    const flush = () => {
      if (quoted.length) nodes.push(element("blockquote", {}, inline(quoted.join("\n"))));
      quoted = [];
    };
    part.split("\n").forEach((line, number, lines) => {
      const quote = line.match(/^(?:&gt;|>) ?(.*)$/);
      if (quote) return void quoted.push(quote[1]);
      const after = quoted.length > 0;
      flush();
      if (number > 0 && !after) nodes.push("\n");
      if (line || number < lines.length - 1) nodes.push(...inline(line));
    });
    flush();
    return nodes;
  });
}

const plainText = (object) => (object.emoji === false ? (text) => text : withEmoji)(unescaped(object.text));

function textObject(object, tag = "div", attributes = {}) {
  const nodes = object.type === "mrkdwn" ? mrkdwn(object.text) : [plainText(object)];
  return element(tag, { ...attributes, class: `text ${attributes.class ?? ""}`.trim() }, nodes);
}

// ── Rich text ───────────────────────────────────────────────────────────────────────────────────────────────────

function richPiece(piece) {
  const node = richNode(piece);
  const style = piece.style ?? {};
  const wrap = (on, tag, inner) => (on ? element(tag, {}, inner) : inner);
  return wrap(style.bold, "strong", wrap(style.italic, "em", wrap(style.strike, "s", wrap(style.underline, "u", wrap(style.code, "code", node)))));
}

function richNode(piece) {
  switch (piece.type) {
    case "text": return document.createTextNode(piece.text);
    case "link": return link(piece.url, piece.text ?? piece.url);
    case "user": return mentionUser(piece.user_id);
    case "usergroup": return mentionGroup(piece.usergroup_id);
    case "channel": return mention(`#${channel(piece.channel_id)?.name ?? piece.channel_id}`, false);
    case "broadcast": return mention(`@${piece.range}`, true, { "data-mention": piece.range });
    case "emoji": return document.createTextNode(EMOJI[piece.name] ?? `:${piece.name}:`);
    case "date": return element("time", {}, date(piece.timestamp, piece.format, piece.fallback ?? ""));
    default: return document.createTextNode("");
  }
}

function richText(block) {
  const parts = block.elements.map((part) => {
    const pieces = () => part.elements.map(richPiece);
    switch (part.type) {
      case "rich_text_preformatted": return element("pre", {}, pieces());
      case "rich_text_quote": return element("blockquote", { class: "text" }, pieces());
      case "rich_text_list":
        return element(part.style === "ordered" ? "ol" : "ul", {},
          part.elements.map((item) => element("li", { class: "text" }, item.elements.map(richPiece))));
      default: return element("div", { class: "text" }, pieces());
    }
  });
  return element("div", { class: "rich" }, parts);
}

// ── Blocks ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** Shows blocks. `press` is called with a button's element and its description; `errors` are shown by block. */
function blocks(list, press, errors = {}) {
  return element("div", { class: "blocks" }, list.map((one) => block(one, press, errors)));
}

function block(one, press, errors) {
  const attributes = { class: `block-${one.type.replace("_", "-")}`, "data-block-id": one.block_id };
  switch (one.type) {
    case "header": return textObject(one.text, "h3", { ...attributes });
    case "section":
      return element("div", attributes,
        one.text ? textObject(one.text) : null,
        one.accessory ? interactive(one.accessory, press) : null,
        one.fields ? element("div", { class: "fields" }, one.fields.map((field) => textObject(field))) : null);
    case "context":
      return element("div", attributes, one.elements.map((part) => (part.type === "image" ? image(part) : textObject(part, "span"))));
    case "divider": return element("hr", attributes);
    case "actions":
      return element("div", { ...attributes, role: "group", "aria-label": "Actions" }, one.elements.map((part) => interactive(part, press)));
    case "input": return field(one, errors[one.block_id]);
    case "image": return element("div", attributes, image(one));
    case "rich_text": {
      const rich = richText(one);
      rich.dataset.blockId = one.block_id;
      return rich;
    }
    case "markdown": return element("div", { ...attributes, class: "text" }, one.text);
    default: return element("div", attributes, `(a block of the kind ${one.type})`);
  }
}

/** Pictures are not fetched from anywhere: their text stands for them. */
function image(one) {
  return element("span", { role: "img", "aria-label": one.alt_text }, icon("picture"), ` ${one.alt_text}`);
}

function interactive(one, press) {
  if (one.type !== "button") return element("span", {}, `(an element of the kind ${one.type})`);
  const made = element("button", {
    type: "button",
    class: `press ${one.style ?? ""}`.trim(),
    "data-action-id": one.action_id,
    "data-value": one.value,
    "aria-label": one.accessibility_label,
  }, plainText(one.text));
  made.addEventListener("click", () => press(made, one));
  return made;
}

function field(one, error) {
  const id = `input-${one.block_id}`;
  const optional = one.optional ? element("span", { class: "optional" }, " (optional)") : null;
  const described = [one.hint ? `${id}-hint` : null, error ? `${id}-error` : null].filter(Boolean).join(" ") || null;
  const many = ["radio_buttons", "checkboxes"].includes(one.element.type);
  const label = textObject(one.label, many ? "legend" : "label", many ? {} : { for: id });
  if (optional) label.append(optional);
  return element(many ? "fieldset" : "div", { class: "field", "data-block-id": one.block_id },
    label,
    input(one.element, id, described),
    one.hint ? textObject(one.hint, "p", { class: "hint", id: `${id}-hint` }) : null,
    error ? element("p", { class: "error", id: `${id}-error`, role: "alert" }, error) : null);
}

function input(one, id, described) {
  const common = { id, "aria-describedby": described, "data-action-id": one.action_id, autofocus: one.focus_on_load ?? false };
  const options = [...(one.options ?? []), ...(one.option_groups ?? []).flatMap((some) => some.options)];
  const label = (option) => plainText(option.text);
  switch (one.type) {
    case "static_select": {
      const chosen = one.initial_option?.value;
      return element("select", common,
        element("option", { value: "" }, one.placeholder?.text ?? "Choose an option"),
        options.map((option) => element("option", { value: option.value, selected: option.value === chosen }, label(option))));
    }
    case "radio_buttons":
    case "checkboxes": {
      const initial = [one.initial_option, ...(one.initial_options ?? [])].map((option) => option?.value);
      const type = one.type === "checkboxes" ? "checkbox" : "radio";
      return element("div", { role: "presentation", "aria-describedby": described },
        options.map((option) => element("label", { class: "choice" },
          element("input", { type, name: id, value: option.value, checked: initial.includes(option.value) }), label(option))));
    }
    default: {
      const attributes = { ...common, placeholder: one.placeholder?.text };
      if (one.multiline) return element("textarea", attributes, one.initial_value ?? "");
      return element("input", {
        ...attributes,
        type: "text",
        autocomplete: "off",
        inputmode: one.type === "number_input" ? "decimal" : null,
        value: one.initial_value ?? "",
      });
    }
  }
}

/** What is in the inputs below an element, by block. */
function entries(below) {
  const found = {};
  for (const one of below.querySelectorAll(".field")) {
    const single = one.querySelector("select, textarea, input[type=text]");
    const checked = [...one.querySelectorAll("input:checked")].map((choice) => choice.value);
    const radio = one.querySelector("input[type=radio]");
    found[one.dataset.blockId] = single ? single.value : radio ? checked[0] ?? null : checked;
  }
  return found;
}

/** Puts back what was in the inputs before they were made anew. */
function refill(below, values) {
  for (const one of below.querySelectorAll(".field")) {
    const value = values[one.dataset.blockId];
    if (value === undefined) continue;
    const single = one.querySelector("select, textarea, input[type=text]");
    if (single) single.value = value;
    else for (const choice of one.querySelectorAll("input")) choice.checked = [].concat(value ?? []).includes(choice.value);
  }
}

// ── Messages ────────────────────────────────────────────────────────────────────────────────────────────────────

function avatar(id) {
  const initials = nameOf(id).split(/\s+/).map((word) => word[0]).join("").slice(0, 2).toUpperCase();
  const hue = id === state.bot.id ? "app" : [...id].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 8;
  return element("div", { class: `avatar hue-${hue}`, "aria-hidden": "true" }, initials);
}

const clock = (ts) => new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" }).format(new Date(Number(ts) * 1000));

function message(one, replies, inThread) {
  const name = nameOf(one.author);
  const warnings = state.warnings.filter((warning) => warning.channel === one.channel && warning.ts === one.ts);
  const made = element("article", {
    class: one.ephemeral ? "message ephemeral" : "message",
    "aria-label": `${name}, ${clock(one.ts)}${one.ephemeral ? ", only visible to you" : ""}`,
    "data-ts": one.ts,
    "data-channel": one.channel,
    "data-updates": one.updates ?? null,
  });
  const press = (button, of) => click(made, one, button, of);
  made.append(
    avatar(one.author),
    element("div", {},
      one.ephemeral ? element("div", { class: "note" }, icon("eye"), " Only visible to you") : null,
      one.broadcast && !inThread ? element("div", { class: "note" }, "replied to a thread") : null,
      element("div", { class: "byline" },
        element("strong", {}, name),
        one.author === state.bot.id ? element("span", { class: "app" }, "APP") : null,
        element("time", {}, clock(one.ts))),
      one.blocks.length ? blocks(one.blocks, press) : element("div", { class: "text" }, mrkdwn(one.text)),
      warnings.map((warning) => element("div", { class: "warning", role: "alert" }, `⚠ ${warning.text} `,
        element("button", { type: "button", class: "plain", click: () => ask("dismiss", { ts: one.ts }) }, "Dismiss"))),
      one.ephemeral ? element("button", { type: "button", class: "plain note", click: () => ask("dismiss", { ts: one.ts }) }, "Dismiss message") : null,
      replies.length && !inThread
        ? element("button", { type: "button", class: "plain replies", click: () => openThread(one.ts) }, replies.length === 1 ? "1 reply" : `${replies.length} replies`)
        : null));
  if (!one.ephemeral && !inThread) {
    made.append(element("button", { type: "button", class: "plain reply-here", click: () => openThread(one.thread_ts ?? one.ts) }, "Reply in thread"));
  }
  return made;
}

async function click(shown, one, button, of) {
  if (of.confirm && !(await confirmed(of.confirm))) return;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    await ask("click", { channel: one.channel, ts: one.ts, action_id: of.action_id, entries: entries(shown) });
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

function confirmed(confirm) {
  const dialog = $("confirm");
  return new Promise((resolve) => {
    const end = (yes) => {
      dialog.close();
      resolve(yes);
    };
    dialog.replaceChildren(element("form", { method: "dialog" },
      element("header", {}, element("h2", { id: "confirm-title" }, confirm.title.text)),
      element("div", { class: "body" }, textObject(confirm.text)),
      element("footer", {},
        element("button", { type: "button", class: "press", click: () => end(false) }, confirm.deny.text),
        element("button", { type: "button", class: `press ${confirm.style ?? "primary"}`, click: () => end(true) }, confirm.confirm.text))));
    dialog.oncancel = () => resolve(false);
    dialog.showModal();
  });
}

/** Replaces what a list shows, where that is something else than before. Stays at the end where it was there. */
function fill(list, key, nodes) {
  if (list.dataset.key === key) return;
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const typed = new Map([...list.querySelectorAll("article")].map((one) => [one.dataset.ts, entries(one)]));
  const focused = document.activeElement?.dataset?.actionId;
  list.dataset.key = key;
  list.replaceChildren(...nodes());
  for (const one of list.querySelectorAll("article")) refill(one, typed.get(one.dataset.ts) ?? {});
  if (focused && !document.activeElement?.dataset?.actionId && list.contains(document.activeElement)) {
    list.querySelector(`[data-action-id="${CSS.escape(focused)}"]`)?.focus();
  }
  if (atEnd) list.scrollTop = list.scrollHeight;
}

// ── The frame ───────────────────────────────────────────────────────────────────────────────────────────────────

const byTime = (one, other) => Number(one.ts) - Number(other.ts);

function inChannel(id) {
  const said = channel(id)?.messages ?? [];
  const own = state.ephemerals.filter((one) => one.channel === id && !one.thread_ts);
  return [...said.filter((one) => !one.thread_ts || one.broadcast), ...own].sort(byTime);
}

function inThread(id, ts) {
  const said = channel(id)?.messages ?? [];
  const own = state.ephemerals.filter((one) => one.channel === id && one.thread_ts === ts);
  return [...said.filter((one) => one.ts === ts || one.thread_ts === ts), ...own].sort(byTime);
}

function unread(id) {
  const since = seen.get(`${place.user} ${id}`) ?? 0;
  const own = state.ephemerals.filter((one) => one.channel === id);
  return [...(channel(id)?.messages ?? []), ...own].filter((one) => Number(one.ts) > since && one.author !== place.user).length;
}

function render() {
  document.body.dataset.user = state.user;
  document.title = `${state.team.name} – Slack simulator`;
  $("team").textContent = state.team.name;
  $("connection").textContent = state.sockets ? `Socket Mode: ${state.sockets} connected` : "";
  $("connection").dataset.sockets = state.sockets;
  fillPeople();
  const last = Math.max(0, ...[...(channel(place.channel)?.messages ?? []), ...state.ephemerals.filter((one) => one.channel === place.channel)].map((one) => Number(one.ts)));
  seen.set(`${place.user} ${place.channel}`, last);

  $("channels").replaceChildren(...state.channels.map((one) => {
    const news = one.id === place.channel ? 0 : unread(one.id);
    return element("li", {}, element("button", {
      type: "button",
      "aria-current": one.id === place.channel ? "true" : null,
      "data-channel": one.id,
      click: () => go(place.user, one.id),
    },
    one.private ? icon("lock") : element("span", { "aria-hidden": "true" }, "#"),
    element("span", { class: news ? "name unread" : "name" }, one.name),
    news ? element("span", { class: "count", "aria-label": `${news} unread` }, String(news)) : null));
  }));
  $("groups").replaceChildren(...state.groups.map((one) =>
    element("li", {}, `@${one.handle}`, element("small", {}, one.members.map((id) => person(id)?.handle ?? id).join(", ")))));

  const here = channel(place.channel);
  $("channel-name").replaceChildren(...(here ? [here.private ? icon("lock") : "#", ` ${here.name}${here.archived ? " (archived)" : ""}`] : []));
  $("channel-topic").textContent = here?.topic ?? "";
  $("say").hidden = !here || here.archived;
  $("say").elements.text.placeholder = here ? `Message #${here.name}` : "";
  $("reply").elements.text.placeholder = "Reply…";
  const shown = inChannel(place.channel);
  const replies = (one) => (here?.messages ?? []).filter((reply) => reply.thread_ts === one.ts);
  const key = JSON.stringify([place.user, place.channel, shown, shown.map((one) => replies(one).length), state.warnings, state.people.length]);
  fill($("messages"), key, () => shown.length
    ? shown.map((one) => message(one, replies(one), false))
    : [element("p", { class: "empty" }, "Nothing was said here yet.")]);

  $("thread").hidden = place.thread === null;
  if (place.thread !== null) {
    const inside = inThread(place.channel, place.thread);
    fill($("replies"), JSON.stringify([place.user, inside, state.warnings]), () => inside.map((one) => message(one, [], true)));
  }
  renderModal();
}

function fillPeople() {
  const key = JSON.stringify(state.people);
  if ($("me").dataset.key !== key) {
    $("me").dataset.key = key;
    $("me").replaceChildren(...state.people.map((one) => element("option", { value: one.id }, `${one.name} (@${one.handle})`)));
  }
  $("me").value = place.user;
}

// ── Modals ──────────────────────────────────────────────────────────────────────────────────────────────────────

function renderModal() {
  const dialog = $("modal");
  const view = state.views.at(-1);
  if (!view) {
    dialog.dataset.key = "";
    if (dialog.open) dialog.close();
    return;
  }
  const key = JSON.stringify([view.id, view.hash, view.errors, view.trouble]);
  if (dialog.dataset.key === key) return;
  const before = dialog.dataset.view === view.id ? entries(dialog) : {};
  dialog.dataset.key = key;
  dialog.dataset.view = view.id;
  dialog.dataset.callbackId = view.callback_id;
  dialog.replaceChildren(element("form", { method: "dialog", novalidate: true, submit: (event) => submit(event, view) },
    element("header", {},
      element("h2", { id: "modal-title" }, view.title.text),
      element("button", { type: "button", class: "plain", "aria-label": "Close", click: () => ask("close", { view: view.id }) }, "✕")),
    element("div", { class: "body" },
      view.trouble ? element("p", { class: "trouble", role: "alert" }, view.trouble) : null,
      blocks(view.blocks, () => {}, view.errors)),
    element("footer", {},
      element("button", { type: "button", class: "press", click: () => ask("close", { view: view.id }) }, view.close?.text ?? "Cancel"),
      view.submit ? element("button", { type: "submit", class: "press primary" }, view.submit.text) : null)));
  refill(dialog, before);
  dialog.oncancel = (event) => {
    event.preventDefault();
    ask("close", { view: view.id });
  };
  if (!dialog.open) dialog.showModal();
}

async function submit(event, view) {
  event.preventDefault();
  const button = event.target.querySelector("[type=submit]");
  button.disabled = true;
  try {
    await ask("submit", { view: view.id, entries: entries(event.target) });
  } finally {
    button.disabled = false;
  }
}

// ── Going about ─────────────────────────────────────────────────────────────────────────────────────────────────

/** The address names who looks and where: `#U0ALICE/C0APPROVALS`. */
function go(user, id, thread = null) {
  location.hash = [user, id, ...(thread ? [thread] : [])].join("/");
}

function openThread(ts) {
  go(place.user, place.channel, ts);
}

function follow() {
  const [user, id, thread] = location.hash.slice(1).split("/");
  const changed = user !== place.user;
  place.user = person(user) ? user : state.people[0]?.id ?? "";
  place.channel = channel(id) ? id : state.channels[0]?.id ?? "";
  place.thread = thread || null;
  // What is known is what the person before saw. Nothing of it is shown to the next one.
  if (changed) waiting.abort();
  else render();
}

/** What only the person sees in a thread would be missed while that is closed. */
function showNewEphemeral(before) {
  const known = new Set(before?.ephemerals.map((one) => one.ts) ?? []);
  const fresh = state.ephemerals.find((one) => !known.has(one.ts) && one.thread_ts && one.channel === place.channel);
  if (before && fresh && place.thread === null) openThread(fresh.thread_ts);
}

async function listen() {
  for (;;) {
    waiting = new AbortController();
    const user = place.user;
    const known = state && state.user === user ? `&after=${state.version}` : "";
    try {
      const answer = await fetch(`/_sim/state?user=${encodeURIComponent(user)}${known}`, { signal: waiting.signal });
      const news = { ...(await answer.json()), user };
      if (user !== place.user) continue;
      const before = state;
      state = news;
      if (before === null) {
        follow();
        continue;
      }
      render();
      if (before.user === user) showNewEphemeral(before);
    } catch (error) {
      if (error.name === "AbortError") continue;
      $("connection").textContent = "The simulator does not answer. Trying again…";
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

function speak(form, thread) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.elements.text.value;
    if (!text.trim()) return;
    form.elements.text.value = "";
    await ask("say", { channel: place.channel, text, thread_ts: thread() });
  });
}

$("me").addEventListener("change", () => go($("me").value, place.channel, place.thread));
$("thread-close").addEventListener("click", () => go(place.user, place.channel));
speak($("say"), () => null);
speak($("reply"), () => place.thread);
window.addEventListener("hashchange", () => state && follow());
place.user = location.hash.slice(1).split("/")[0];
listen();
