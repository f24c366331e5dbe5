// One field of the form: made from a JSON Schema, with its help, and what is wrong beside it.

import { el, prose } from "./dom.js";

// `name` is the place that the server names in a fault, such as `parameters.steps`.
export class Field {
  constructor(name, schema, { value = schema.default, required = false, label = name.split(".").pop(), onChange }) {
    this.name = name;
    this.default = schema.default;
    this.touched = false;
    this.kind = kindOf(schema);
    const id = `field-${name.replaceAll(/[^\w-]/g, "-")}`;
    const help = el("p", { class: "hint", id: `${id}-help` });
    const explain = () => help.replaceChildren(...prose([schema.description, this.chosen(), limits(this.kind, schema)].filter(Boolean).join(" ")));
    this.input = this.makeInput(schema, value);
    this.problem = el("p", { class: "fault", id: `${id}-fault`, hidden: true });
    for (const [attribute, text] of [["id", id], ["name", name], ["aria-describedby", `${id}-fault ${id}-help`]]) this.input.setAttribute(attribute, text);
    if (required) this.input.setAttribute("aria-required", "true");
    this.input.addEventListener("input", () => { this.touched = true; explain(); onChange(); });
    explain();
    this.element = el("div", { class: `field ${this.kind.type}` },
      el("label", { for: id }, label, required && el("span", { class: "required" }, "required")),
      this.input, this.problem, help);
  }

  // What the schema says of the choice that was made.
  chosen() {
    const { type, choices } = this.kind;
    return type === "choice" && choices.find((choice) => JSON.stringify(choice.value) === this.input.value)?.description;
  }

  makeInput(schema, value) {
    const { type, choices } = this.kind;
    if (type === "choice") {
      const chosen = value === undefined || value === null ? "" : JSON.stringify(value);
      const options = choices.map((choice) => [JSON.stringify(choice.value), choice.text]);
      // A copied task may have been given another spelling.
      if (chosen && !options.some(([known]) => known === chosen)) options.unshift([chosen, String(value)]);
      if (!chosen || !this.default) options.unshift(["", "Not set"]);
      const select = el("select", {}, options.map(([known, text]) => el("option", { value: known }, text)));
      select.value = chosen;
      return select;
    }
    if (type === "yes-or-no") {
      const box = el("input", { type: "checkbox" });
      box.checked = value === true;
      return box;
    }
    if (type === "json" || type === "lines") {
      const area = el("textarea", { rows: 3, spellcheck: "false" });
      area.value = value === undefined || value === null ? "" : type === "json" ? JSON.stringify(value, null, 2) : value;
      return area;
    }
    const input = el("input", { autocomplete: "off", spellcheck: "false", placeholder: schema.examples?.[0],
      inputmode: type === "number" ? "decimal" : undefined, type: type === "moment" ? "datetime-local" : "text" });
    input.value = value ?? "";
    return input;
  }

  // What is to be sent; `undefined` for nothing. What is not what it should be goes as text, so that
  // the server says what it expected.
  value() {
    const text = this.input.value;
    switch (this.kind.type) {
      case "choice": return text === "" ? undefined : JSON.parse(text);
      case "yes-or-no": return this.input.checked;
      case "json": return text.trim() === "" ? undefined : parsed(text);
      case "number": return text.trim() === "" ? undefined : Number.isFinite(Number(text)) ? Number(text) : text;
      case "moment": return text === "" ? undefined : new Date(text).toISOString();
      default: return text === "" && !this.default ? undefined : text;
    }
  }

  // Whether leaving it out means the same.
  isDefault() {
    return JSON.stringify(this.value()) === JSON.stringify(this.default);
  }

  show(problems) {
    const text = problems.join("\n");
    this.problem.hidden = !text;
    this.problem.textContent = text;
    if (text) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return text; }
}

// How to ask for a value of this schema.
function kindOf(schema) {
  if (schema.format === "date-time") return { type: "moment" };
  if (schema.format === "lines") return { type: "lines" };
  const choices = (schema.oneOf ?? schema.anyOf)?.filter((choice) => choice.type !== "null");
  if (choices?.every((choice) => "const" in choice)) {
    return { type: "choice", choices: choices.map((choice) => ({ value: choice.const, text: String(choice.const), description: choice.description })) };
  }
  // Names of which other spellings are taken too: one alternative lists them.
  const listed = choices?.find((choice) => choice.enum);
  if (listed && choices.every((choice) => choice === listed || choice.pattern)) {
    return { type: "choice", choices: listed.enum.map((value) => ({ value, text: String(value) })) };
  }
  if (schema.enum) return { type: "choice", choices: schema.enum.map((value) => ({ value, text: String(value) })) };
  const types = [schema.type].flat().filter((type) => type !== "null");
  switch (types.length === 1 && types[0]) {
    case "boolean": return { type: "yes-or-no" };
    case "integer": case "number": return { type: "number" };
    case "string": return { type: "text" };
    default: return { type: "json" };
  }
}

function limits(kind, schema) {
  if (kind.type !== "number") return kind.type === "json" ? "As JSON." : "";
  const { minimum: least, maximum } = schema;
  // Limits of the machine's numbers help nobody.
  const most = maximum < 1e6 ? maximum : undefined;
  const words = [];
  if (least !== undefined && most !== undefined) words.push(`From ${least} to ${most}.`);
  else if (least !== undefined) words.push(`At least ${least}.`);
  else if (most !== undefined) words.push(`At most ${most}.`);
  if (schema.default !== undefined && schema.default !== null) words.push(`Default ${schema.default}.`);
  return words.join(" ");
}

// The schema that a reference names, and the one beside `null` where a value may be left out.
export function resolved(schema, root) {
  const followed = schema.$ref?.startsWith("#/$defs/") ? { ...root.$defs?.[schema.$ref.slice(8)], ...schema } : schema;
  const others = followed.anyOf?.filter((one) => one.type !== "null");
  if (others?.length !== 1) return followed;
  const { anyOf, ...rest } = followed;
  return { ...resolved(others[0], root), ...rest };
}
