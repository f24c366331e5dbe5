//! Arguments of a command with placeholders. A placeholder fills a part of one argument and never
//! makes a second one: no shell is involved.

use serde_json::Value;

use crate::task::{Fault, expected_names};

/// One argument: literal text and placeholders.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Placeholder {
    /// The tasks folder.
    Folder,
    Input,
    Output,
    TaskId,
    Attempt,
    Cpus,
    /// A parameter, by name.
    Parameter(String),
}

/// What the placeholders of a manifest may name.
#[derive(Clone, Copy)]
pub(super) struct Names<'m> {
    pub(super) input: bool,
    pub(super) output: bool,
    pub(super) parameters: &'m [String],
}

/// Prefix of placeholders of parameters.
const PARAMETERS: &str = "parameters.";

impl Template {
    /// Parses an argument. `{{` and `}}` are braces.
    pub(super) fn parse(text: &str, names: Names<'_>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) =
                (brace == "{").then(|| rest.split_once('}')).flatten().ok_or_else(|| {
                    format!("unmatched `{brace}` in `{text}`: write `{brace}{brace}` for a brace")
                })?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Placeholder(names.find(name)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// Fills the placeholders. `None` if one of them has no value: the argument is left out.
    pub(super) fn fill(&self, value: impl Fn(&Placeholder) -> Option<String>) -> Option<String> {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Placeholder(placeholder) => value(placeholder),
        });
        parts.collect()
    }

    /// Finds a text that cannot be a part of this argument: one with a NUL, or one that a program
    /// would take for an option because it begins the argument with `-`.
    pub(super) fn fault(&self, parameters: &Value) -> Option<Fault> {
        for (index, part) in self.0.iter().enumerate() {
            let Part::Placeholder(Placeholder::Parameter(name)) = part else { continue };
            let text = parameters[name].as_str().unwrap_or_default();
            let msg = if text.contains('\0') {
                "Input should not contain a NUL character"
            } else if index == 0 && text.starts_with('-') {
                "Input should not start with `-`: the program would take it for an option"
            } else {
                continue;
            };
            return Some(Fault::value(&["parameters", name], msg, text));
        }
        None
    }
}

impl Names<'_> {
    fn find(self, name: &str) -> Result<Placeholder, String> {
        let found = match name {
            "folder" => Some(Placeholder::Folder),
            "input" => self.input.then_some(Placeholder::Input),
            "output" => self.output.then_some(Placeholder::Output),
            "task_id" => Some(Placeholder::TaskId),
            "attempt" => Some(Placeholder::Attempt),
            "cpus" => Some(Placeholder::Cpus),
            _ => None,
        };
        let parameter = name.strip_prefix(PARAMETERS);
        let parameter = parameter.filter(|name| self.parameters.iter().any(|known| known == name));
        let found = found.or_else(|| parameter.map(|name| Placeholder::Parameter(name.to_owned())));
        found.ok_or_else(|| match name {
            "input" | "output" => {
                format!("`{{{name}}}` in a command needs {name} = \"optional\" or \"required\"")
            }
            _ => {
                let parameters = self.parameters.iter().map(|name| format!("{PARAMETERS}{name}"));
                let known = ["folder", "input", "output", "task_id", "attempt", "cpus"];
                let known = known.into_iter().map(str::to_owned).chain(parameters);
                let known: Vec<_> = known.collect();
                let expected = expected_names(name, known.iter().map(String::as_str));
                format!("unknown placeholder `{{{name}}}`, {expected}; write `{{{{` for a brace")
            }
        })
    }
}

/// The text of a parameter in an argument: strings as they are, other values as JSON. `None` for null.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Template, String> {
        let parameters = ["channel".to_owned(), "name".to_owned()];
        Template::parse(text, Names { input: true, output: false, parameters: &parameters })
    }

    fn filled(text: &str) -> Option<String> {
        parse(text).unwrap().fill(|placeholder| match placeholder {
            Placeholder::Input => Some("/data/a b.tif".to_owned()),
            Placeholder::Parameter(name) if name == "channel" => Some("2".to_owned()),
            Placeholder::Parameter(_) => None,
            other => Some(format!("{other:?}")),
        })
    }

    #[test]
    fn a_placeholder_fills_one_argument() {
        assert_eq!(filled("{input}").unwrap(), "/data/a b.tif");
        assert_eq!(filled("--c={parameters.channel}!").unwrap(), "--c=2!");
        assert_eq!(filled("awk {{print}} }}{{").unwrap(), "awk {print} }{");
        assert_eq!(filled("").unwrap(), "");
        assert_eq!(filled("--name={parameters.name}"), None);
    }

    #[test]
    fn a_mistake_in_a_template_is_explained() {
        let said = parse("{parameters.chanel}").unwrap_err();
        assert!(said.contains("did you mean `parameters.channel`?"), "{said}");
        let said = parse("{output}").unwrap_err();
        assert!(said.contains("needs output = "), "{said}");
        for text in ["{", "}", "a{b", "{}", "{input}}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_text_that_looks_like_an_option_is_refused_at_the_start_of_an_argument() {
        let check = |template: &str, value: Value| {
            parse(template).unwrap().fault(&json!({ "name": value })).is_none()
        };
        assert!(!check("{parameters.name}", json!("-rf")));
        assert!(check("{parameters.name}", json!("a-rf")));
        assert!(check("{parameters.name}", json!(-1)));
        assert!(check("--name={parameters.name}", json!("-rf")));
        assert!(!check("--name={parameters.name}", json!("a\0b")));
    }

    proptest! {
        #[test]
        fn a_text_without_braces_is_kept(text in "[^{}]*") {
            prop_assert_eq!(parse(&text).unwrap(), Template(vec![Part::Text(text)]));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = parse(&text);
        }
    }
}
