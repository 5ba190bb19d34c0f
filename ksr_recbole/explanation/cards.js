// Cards of recommendations with their reasons.  Text only ever enters the page as text.
const $ = (id) => document.getElementById(id);
const percent = (weight) => weight >= 0.01 ? Math.round(100 * weight) + " %" : "less than 1 %";
const counted = (n, one, many) => n.toLocaleString("en") + " " + (n === 1 ? one : many);
const SPLIT = {
  exact: "A number at a reason: what its value adds to the score, which is a sum.",
  "left out": "A number at a reason: by how much the score falls if the items it names are left out of the history, each alone, of the latest 50.",
};

function make(tag, text, attributes) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  return element;
}

// choose(reason), or choose(null), is called when a reason is pressed or released.
function showCards(list, recommendations, choose) {
  let pressed = null;
  const press = (button, reason) => {
    if (pressed) pressed.setAttribute("aria-pressed", "false");
    pressed = pressed === button ? null : button;
    if (pressed) pressed.setAttribute("aria-pressed", "true");
    choose(pressed ? reason : null);
  };
  list.replaceChildren();
  for (const each of recommendations) list.append(card(each, press));
  if (!recommendations.length) list.append(make("li", "Nothing: every item was chosen before."));
}

function card(each, press) {
  const item = make("li"), title = make("h3");
  title.append(make("span", String(each.rank), {class: "rank"}), each.item.title);
  item.append(title, make("p", each.sentence), reasonButtons(each.reasons.slice(0, 3), press));
  const rest = each.reasons.slice(3);
  const shared = each.reasons.length ? [] : each.shared;
  if (!rest.length && !each.common.length && !shared.length) return item;
  const more = make("details", undefined, {class: "more"});
  more.append(make("summary", "more"));
  for (const [what, reasons] of [["", rest], ["More than a fifth of the items have these too:", each.common],
      ["Shares with your history (not the model's reason):", shared]]) {
    if (!reasons.length) continue;
    if (what) more.append(make("p", what, {class: "faint"}));
    more.append(reasonButtons(reasons, press));
  }
  item.append(more);
  return item;
}

function reasonButtons(reasons, press) {
  const list = make("ul", undefined, {class: "reasons"});
  for (const reason of reasons) {
    const item = make("li"), button = make("button", reason.phrase, {type: "button", "aria-pressed": "false"});
    button.title = `${reason.sentence} (${reason.weight.toFixed(3)}; ${percent(reason.attention)} of the attention)`;
    button.addEventListener("click", () => press(button, reason));
    item.append(button);
    list.append(item);
  }
  return list;
}

// Marks the items of the history that a reason names; what is said of it.
function markHistory(items, reason) {
  const ids = new Set(reason ? reason.chosen.map((c) => c.item.id) : []);
  let first = null;
  for (const item of items) {
    const marked = ids.has(item.dataset.id);
    item.classList.toggle("marked", marked);
    if (marked && !first) first = item;
  }
  if (first) first.parentElement.scrollTop = first.offsetTop - first.parentElement.offsetTop - 8;
  return reason ? reason.sentence : "";
}
