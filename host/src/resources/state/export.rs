//! How are values written for people and for other programs?
//!
//! A value is a line of JSON: `{"key", "schema", "value"}`, with `"ends"` if it ends, in milliseconds since 1970. What MessagePack has and JSON
//! hasn't becomes an object with one name that begins with `$`, and comes back as what it was.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value as Pack;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value as Json, json};

/// A value with its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Its key.
    pub key: String,
    /// The schema number of its writer.
    pub schema: u32,
    /// When it ends, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "is_never")]
    pub ends: u64,
    /// The value.
    pub value: Json,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_never(ends: &u64) -> bool {
    *ends == 0
}

/// MessagePack as JSON; what can't be read as MessagePack is bytes.
#[must_use]
pub(crate) fn to_json(bytes: &[u8]) -> Json {
    let mut rest = bytes;
    match rmpv::decode::read_value(&mut rest) {
        Ok(value) if rest.is_empty() => json_of(&value),
        _ => json!({ "$raw": STANDARD.encode(bytes) }),
    }
}

fn json_of(value: &Pack) -> Json {
    match value {
        Pack::Nil => Json::Null,
        Pack::Boolean(truth) => Json::Bool(*truth),
        Pack::Integer(number) => {
            let whole = number.as_u64().map(Number::from).or_else(|| number.as_i64().map(Number::from));
            whole.map_or(Json::Null, Json::Number)
        }
        // A JSON number has no width.
        Pack::F32(number) => json!({ "$f32": text_of(f64::from(*number)) }),
        Pack::F64(number) => Number::from_f64(*number).map_or_else(|| json!({ "$f64": text_of(*number) }), Json::Number),
        Pack::String(text) => text.as_str().map_or_else(|| json!({ "$text": STANDARD.encode(text.as_bytes()) }), Json::from),
        Pack::Binary(bytes) => json!({ "$bytes": STANDARD.encode(bytes) }),
        Pack::Array(items) => Json::Array(items.iter().map(json_of).collect()),
        Pack::Map(pairs) => {
            let name = |key: &Pack| key.as_str().filter(|name| !name.starts_with('$')).map(str::to_owned);
            let named: Option<Map<String, Json>> = pairs.iter().map(|(key, value)| Some((name(key)?, json_of(value)))).collect();
            // Two of one name would be one.
            match named.filter(|named| named.len() == pairs.len()) {
                Some(named) => Json::Object(named),
                None => {
                    json!({ "$map": pairs.iter().map(|(key, value)| json!([json_of(key), json_of(value)])).collect::<Vec<_>>() })
                }
            }
        }
        Pack::Ext(kind, bytes) => json!({ "$ext": [kind, STANDARD.encode(bytes)] }),
    }
}

fn text_of(number: f64) -> String {
    format!("{number:?}")
}

/// JSON as MessagePack, which [`to_json`] turns into the same JSON.
///
/// # Errors
///
/// What of it has no such form.
pub(crate) fn to_bytes(value: &Json) -> Result<Vec<u8>, String> {
    if let Some(("$raw", raw)) = special(value) {
        return bytes_of(raw);
    }
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &pack_of(value)?).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The one name and the value of an object that stands for something else.
fn special(value: &Json) -> Option<(&str, &Json)> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().filter(|(name, _)| name.starts_with('$')).map(|(name, value)| (name.as_str(), value))
}

fn bytes_of(value: &Json) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("bytes are written as base64 text")?;
    STANDARD.decode(text).map_err(|error| format!("bytes are written as base64 text: {error}"))
}

fn pack_of(value: &Json) -> Result<Pack, String> {
    if let Some((name, value)) = special(value) {
        let float = || value.as_str().and_then(|text| text.parse::<f64>().ok()).ok_or(format!("{name} holds a number as text"));
        return Ok(match name {
            "$bytes" => Pack::Binary(bytes_of(value)?),
            #[allow(clippy::cast_possible_truncation, reason = "it was one")]
            "$f32" => Pack::F32(float()? as f32),
            "$f64" => Pack::F64(float()?),
            "$text" => rmpv::decode::read_value(&mut &*text_with_head(&bytes_of(value)?)?).map_err(|error| error.to_string())?,
            "$map" => {
                let pairs = value.as_array().ok_or("$map holds pairs")?;
                let pair = |pair: &Json| match pair.as_array().map(Vec::as_slice) {
                    Some([key, value]) => Ok((pack_of(key)?, pack_of(value)?)),
                    _ => Err("$map holds pairs".to_owned()),
                };
                Pack::Map(pairs.iter().map(pair).collect::<Result<_, _>>()?)
            }
            "$ext" => match value.as_array().map(Vec::as_slice) {
                Some([kind, bytes]) => {
                    let kind = kind.as_i64().and_then(|kind| i8::try_from(kind).ok()).ok_or("$ext holds a kind and bytes")?;
                    Pack::Ext(kind, bytes_of(bytes)?)
                }
                _ => return Err("$ext holds a kind and bytes".to_owned()),
            },
            other => return Err(format!("{other} is no name that an object of one value may have")),
        });
    }
    Ok(match value {
        Json::Null => Pack::Nil,
        Json::Bool(truth) => Pack::Boolean(*truth),
        Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => Pack::from(number),
            (_, Some(number), _) => Pack::from(number),
            (.., Some(number)) => Pack::F64(number),
            _ => return Err(format!("{number} is no number that can be kept")),
        },
        Json::String(text) => Pack::from(text.as_str()),
        Json::Array(items) => Pack::Array(items.iter().map(pack_of).collect::<Result<_, _>>()?),
        Json::Object(object) => Pack::Map(
            object.iter().map(|(name, value)| Ok((Pack::from(name.as_str()), pack_of(value)?))).collect::<Result<_, String>>()?,
        ),
    })
}

/// A text that isn't UTF-8 can only be read, not made.
fn text_with_head(text: &[u8]) -> Result<Vec<u8>, String> {
    let length = u32::try_from(text.len()).map_err(|error| error.to_string())?;
    Ok([&[0xdb][..], &length.to_be_bytes(), text].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_has_no_form_for_comes_back_as_it_was() {
        let text = rmpv::decode::read_value(&mut &b"\xa2\xff\xfe"[..]).expect("a text of a kind");
        for value in [
            Pack::Nil,
            Pack::from(true),
            Pack::from(u64::MAX),
            Pack::from(i64::MIN),
            Pack::from(7),
            Pack::F32(0.1),
            Pack::F32(f32::NAN),
            Pack::F64(2.0),
            Pack::F64(f64::NEG_INFINITY),
            Pack::from("text $ é"),
            text,
            Pack::Binary(vec![0, 255, 7]),
            Pack::Array(vec![Pack::Nil, Pack::from("x")]),
            Pack::Map(vec![(Pack::from("a"), Pack::from(1)), (Pack::from("b"), Pack::Binary(vec![1]))]),
            Pack::Map(vec![(Pack::from(1), Pack::from("a")), (Pack::from("$bytes"), Pack::from("b"))]),
            Pack::Map(vec![(Pack::from("$bytes"), Pack::from("AAAA"))]),
            Pack::Map(vec![(Pack::from("a"), Pack::from(1)), (Pack::from("a"), Pack::from(2))]),
            Pack::Map(Vec::new()),
            Pack::Ext(-3, vec![1, 2]),
        ] {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &value).expect("it can be written");
            let json = to_json(&bytes).to_string();
            let parsed = serde_json::from_str(&json).expect("JSON");
            assert_eq!(to_bytes(&parsed).as_ref(), Ok(&bytes), "{value:?} as {json}");
        }
        for raw in [&b"\x01\x01"[..], b"", b"\xdb\0\0"] {
            assert_eq!(to_bytes(&to_json(raw)), Ok(raw.to_vec()));
        }
    }

    #[test]
    fn what_is_no_value_is_said() {
        for (json, words) in [
            (json!({ "$bytes": "?" }), "base64"),
            (json!({ "$bytes": 1 }), "base64"),
            (json!({ "$what": 1 }), "$what"),
            (json!([{ "$map": [[1]] }]), "pairs"),
            (json!({ "$ext": [300, ""] }), "kind"),
            (json!({ "$f64": "x" }), "$f64"),
        ] {
            let error = to_bytes(&json).expect_err("refused");
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
