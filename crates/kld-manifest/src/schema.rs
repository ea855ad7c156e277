//! The JSON Schema of the structured form, printed from the table of keys.
//!
//! Dialect: JSON Schema 2020-12. A manifest's structured form is a tree of keys, lists and words; the schema describes
//! that tree. What cannot be said in a schema (a port that no zone opens) is left to [`check`](crate::check).

use serde_json::{Map, Value, json};

use crate::directives::{DIRECTIVES, PRESET};
use crate::keys::{DATASET, Key, Kind, PLANE, PROCEDURE, ROOT, Section, WIREGUARD};
use crate::model::Preset;

/// The schema of a manifest's structured form.
pub fn schema() -> Value {
    let mut schema = section(&ROOT);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("kldload appliance manifest, structured form");
    schema
}

fn section(section: &'static Section) -> Value {
    let properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), describe(key))).collect();
    let required: Vec<&str> = section.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    // Sections with names beside their keys.
    if std::ptr::eq(section, &WIREGUARD) {
        schema["patternProperties"] =
            json!({ "^wg(0|[1-9][0-9]{0,2})$": one_line_or(self::section(&PLANE)) });
    } else if std::ptr::eq(section, &DATASET) {
        schema["patternProperties"] = json!({ "^[a-z0-9._-]*:[a-z0-9:._-]*$": { "type": "string" } });
    } else if std::ptr::eq(section, &PROCEDURE) {
        schema["patternProperties"] = json!({ "^(RTO|RPO)$": { "type": "string" } });
    }
    schema
}

fn describe(key: &'static Key) -> Value {
    let mut schema = kind(key.kind, key.name);
    // A section has a description of its own; the key's is about the key.
    schema["description"] = json!(key.doc);
    schema["examples"] = json!([key.example]);
    schema
}

fn kind(kind: Kind, name: &str) -> Value {
    match kind {
        Kind::Text(what) => json!({ "type": "string", "minLength": 1, "title": what }),
        Kind::Block => json!({ "type": "string" }),
        // Sizes, counts and modes may be written as numbers.
        Kind::Checked(rule) => {
            json!({ "type": ["string", "number"], "pattern": rule.pattern, "title": rule.what })
        }
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Choice(choices) if choices.contains(&"on") => {
            let words: Vec<Value> =
                choices.iter().map(|c| json!(c)).chain([json!(true), json!(false)]).collect();
            json!({ "enum": words })
        }
        Kind::Choice(choices) => {
            let numbers = choices.iter().filter_map(|choice| choice.parse::<u64>().ok()).map(|n| json!(n));
            let words: Vec<Value> = choices.iter().map(|choice| json!(choice)).chain(numbers).collect();
            json!({ "enum": words })
        }
        Kind::Flag => json!({ "enum": ["yes", "no", true, false] }),
        Kind::Duration => {
            json!({ "type": "string", "pattern": "^[0-9]+ ?(s|sec|m|min|h|d|(second|minute|hour|day)s?)$" })
        }
        Kind::List(what) => {
            json!({ "type": ["array", "string", "integer"], "items": { "type": ["string", "integer"] }, "title": what })
        }
        Kind::Section(inner) => one_line_or(section(inner)),
        Kind::Items(inner) => one_line_or(json!({ "type": "array", "items": one_line_or(section(inner)) })),
        Kind::Map(what, inner) => {
            json!({ "type": "object", "title": what, "additionalProperties": one_line_or(section(inner)) })
        }
        Kind::Pairs(what) => {
            let values = json!({ "type": ["string", "number", "boolean"] });
            let mut schema = json!({ "type": "object", "title": what, "additionalProperties": values });
            if name == "hardening" {
                let names: Vec<&str> = std::iter::once(PRESET).chain(DIRECTIVES.iter().copied()).collect();
                schema["propertyNames"] = json!({ "enum": names });
                schema["properties"] = json!({ PRESET: { "enum": Preset::ALL } });
            }
            one_line_or(schema)
        }
    }
}

/// Every structured form may also be one line of the notation, which only the parser can judge.
fn one_line_or(structured: Value) -> Value {
    json!({ "anyOf": [structured, { "type": "string" }] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::{every_section, frames};

    /// Notation → the tree the schema describes, enough for the examples: keys, items, words.
    fn tree(nodes: &[crate::syntax::Node<'_>]) -> Value {
        use crate::syntax::Marker;
        if nodes.iter().all(|node| node.marker == Marker::Item) && !nodes.is_empty() {
            return nodes.iter().map(|item| tree(&item.children)).collect();
        }
        if let [only] = nodes
            && only.key.is_none()
        {
            return json!(only.text.unquoted());
        }
        let entry = |node: &crate::syntax::Node<'_>| {
            let value = match (&node.block, node.value) {
                (Some(block), _) => json!(block.value),
                (None, Some(value)) => match value.as_str().parse::<u64>() {
                    Ok(number) if !value.as_str().starts_with('0') || number == 0 => json!(number),
                    _ => json!(value.unquoted()),
                },
                (None, None) => tree(&node.children),
            };
            (node.key.map(|key| key.bare().as_str().to_owned()).unwrap_or_default(), value)
        };
        Value::Object(nodes.iter().map(entry).collect())
    }

    /// The part of JSON Schema that the schema uses, without patterns.
    fn accepts(schema: &Value, value: &Value) -> bool {
        if let Some(choices) = schema["anyOf"].as_array() {
            return choices.iter().any(|choice| accepts(choice, value));
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.contains(value);
        }
        let is = |name: &str| match name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            other => panic!("the schema uses a type that is not known here: {other}"),
        };
        let typed = match &schema["type"] {
            Value::String(name) => is(name),
            Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
            _ => false,
        };
        let bounded = value.as_u64().is_none_or(|number| {
            schema["minimum"].as_u64().is_none_or(|min| min <= number)
                && schema["maximum"].as_u64().is_none_or(|max| number <= max)
        });
        let items =
            value.as_array().is_none_or(|items| items.iter().all(|item| accepts(&schema["items"], item)));
        let members = value.as_object().is_none_or(|members| {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let patterns = schema["patternProperties"].as_object();
            required.into_iter().all(|name| members.contains_key(name))
                && members.iter().all(|(name, member)| {
                    if let Some(known) = schema["properties"].get(name) {
                        return accepts(known, member);
                    }
                    // Patterns are not evaluated here: names like `wg0` and `a:b` are the only ones.
                    if let Some(inner) = patterns.and_then(|patterns| patterns.values().next()) {
                        return accepts(inner, member);
                    }
                    match &schema["additionalProperties"] {
                        Value::Bool(allowed) => *allowed,
                        inner => accepts(inner, member),
                    }
                })
        });
        typed && bounded && items && members
    }

    #[test]
    fn the_schema_accepts_the_examples_of_every_section() {
        let schema = schema();
        for section in every_section() {
            // Numbered steps and one-line alerts are of the notation alone.
            let structured =
                |manifest: &String| !manifest.contains("\n  1. ") && !manifest.contains("pool DEGRADED");
            for manifest in frames(section).into_iter().filter(structured) {
                let mut report = crate::diagnostic::Reporter::default();
                let nodes = crate::syntax::parse(&manifest, &mut report);
                let value = tree(&nodes);
                assert!(accepts(&schema, &value), "{}\n{manifest}\n{value:#}", section.title);
            }
        }
    }

    #[test]
    fn the_schema_refuses_what_the_table_does_not_know() {
        let base = json!({ "name": "a", "distro": "Debian 13", "profile": "server" });
        assert!(accepts(&schema(), &base));
        for (key, value) in [
            ("nmae", json!("b")),
            ("profile", json!("big")),
            ("snapshot_policy", json!({ "hourly": -1 })),
            ("zfs_layout", json!({ "rpool/a": { "atime": "maybe" } })),
            ("services", json!([{ "command": "/bin/x" }])),
        ] {
            let mut broken = base.clone();
            broken[key] = value;
            assert!(!accepts(&schema(), &broken), "{key}");
        }
    }
}
