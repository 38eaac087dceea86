//! Values as Python prints them, and as `json.dumps` does.

use std::fmt::Write;
use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use unicode_general_category::{GeneralCategory, get_general_category};

use super::value::{List, Map, Meter, name, refused};

/// `str(value)`.
///
/// # Errors
///
/// Where it is a macro, a loop or a namespace, and where the meter is spent.
pub(super) fn text(meter: &Arc<Meter>, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut out = Writer { meter, text: String::new() };
    if !value.is_undefined() {
        out.repr(value)?;
    }
    Ok(out.text)
}

/// How [`json`] writes.
#[derive(Debug)]
pub(super) struct Style {
    /// Spaces for each level, and a line for each item; one line if not given.
    pub(super) indent: Option<usize>,
    /// What stands between items, and between key and value.
    pub(super) separators: (String, String),
    /// Whether other characters than those of ASCII are escaped.
    pub(super) ascii: bool,
    /// Whether keys are put in order.
    pub(super) sorted: bool,
}

/// `json.dumps(value)`.
///
/// # Errors
///
/// Where JSON has no such value, and where the meter is spent.
pub(super) fn json(meter: &Arc<Meter>, value: &Value, style: &Style) -> Result<String, Error> {
    let mut out = Writer { meter, text: String::new() };
    out.json(value, style, 0)?;
    Ok(out.text)
}

/// A text, each byte of which is paid for.
struct Writer<'m> {
    meter: &'m Arc<Meter>,
    text: String,
}

impl Writer<'_> {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        self.meter.charge(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    /// `repr(value)`.
    fn repr(&mut self, value: &Value) -> Result<(), Error> {
        if let Some(list) = value.downcast_object_ref::<List>() {
            self.pay(list.walk())?;
            self.push("[")?;
            for (i, item) in list.items.iter().enumerate() {
                self.push(if i > 0 { ", " } else { "" })?;
                self.repr(item)?;
            }
            return self.push("]");
        }
        if let Some(map) = value.downcast_object_ref::<Map>() {
            self.pay(map.walk())?;
            self.push("{")?;
            for (i, (key, value)) in map.entries.iter().enumerate() {
                self.push(if i > 0 { ", " } else { "" })?;
                self.repr(key)?;
                self.push(": ")?;
                self.repr(value)?;
            }
            return self.push("}");
        }
        match value.kind() {
            ValueKind::Undefined => self.push("Undefined"),
            ValueKind::None => self.push("None"),
            ValueKind::Bool => self.push(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number => self.push(&number(value)),
            ValueKind::String => self.quoted(value.as_str().unwrap_or_default()),
            _ => Err(refused(format!("to print `{}`", name(value)))),
        }
    }

    fn pay(&self, paid: bool) -> Result<(), Error> {
        if paid { Ok(()) } else { Err(Error::from(ErrorKind::OutOfFuel)) }
    }

    /// A string between the quotes that it has fewer of.
    fn quoted(&mut self, text: &str) -> Result<(), Error> {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        let mut quoted = String::from(quote);
        self.meter.charge(text.len())?;
        for c in text.chars() {
            let code = u32::from(c);
            let _ = match c {
                '\n' => write!(quoted, "\\n"),
                '\r' => write!(quoted, "\\r"),
                '\t' => write!(quoted, "\\t"),
                '\\' => write!(quoted, "\\\\"),
                c if c == quote => write!(quoted, "\\{c}"),
                c if is_printable(c) => write!(quoted, "{c}"),
                _ if code < 0x100 => write!(quoted, "\\x{code:02x}"),
                _ if code < 0x1_0000 => write!(quoted, "\\u{code:04x}"),
                _ => write!(quoted, "\\U{code:08x}"),
            };
        }
        quoted.push(quote);
        self.push(&quoted)
    }

    fn json(&mut self, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
        if let Some(list) = value.downcast_object_ref::<List>() {
            self.pay(list.walk())?;
            return self.items(("[", "]"), list.items.iter(), style, depth, |out, item| {
                out.json(item, style, depth + 1)
            });
        }
        if let Some(map) = value.downcast_object_ref::<Map>() {
            self.pay(map.walk())?;
            let mut entries: Vec<_> = map.entries.iter().collect();
            if style.sorted {
                entries.sort_by_key(|(key, _)| *key);
            }
            let entries = entries.into_iter();
            return self.items(("{", "}"), entries, style, depth, |out, (key, value)| {
                match key.as_str() {
                    Some(key) => out.json_string(key, style.ascii)?,
                    None => {
                        out.push("\"")?;
                        out.json(key, style, depth)?;
                        out.push("\"")?;
                    }
                }
                out.push(&style.separators.1)?;
                out.json(value, style, depth + 1)
            });
        }
        match value.kind() {
            ValueKind::None => self.push("null"),
            ValueKind::Bool => self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.push(&match &*number(value) {
                "nan" => "NaN".to_owned(),
                "inf" => "Infinity".to_owned(),
                "-inf" => "-Infinity".to_owned(),
                number => number.to_owned(),
            }),
            ValueKind::String => self.json_string(value.as_str().unwrap_or_default(), style.ascii),
            _ => Err(refused(format!("`{}` in JSON", name(value)))),
        }
    }

    /// What is between brackets, each item by `write`.
    fn items<T>(
        &mut self,
        (open, close): (&str, &str),
        items: impl ExactSizeIterator<Item = T>,
        style: &Style,
        depth: usize,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let empty = items.len() == 0;
        self.push(open)?;
        for (i, item) in items.enumerate() {
            self.push(if i > 0 { &style.separators.0 } else { "" })?;
            self.line(style, depth + 1)?;
            write(self, item)?;
        }
        if !empty {
            self.line(style, depth)?;
        }
        self.push(close)
    }

    /// A new line, where there are such.
    fn line(&mut self, style: &Style, depth: usize) -> Result<(), Error> {
        let Some(indent) = style.indent else { return Ok(()) };
        let spaces = indent.saturating_mul(depth);
        self.meter.charge(spaces)?;
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', spaces));
        Ok(())
    }

    fn json_string(&mut self, text: &str, ascii: bool) -> Result<(), Error> {
        let mut quoted = String::from('"');
        self.meter.charge(text.len())?;
        for c in text.chars() {
            let _ = match c {
                '"' => write!(quoted, "\\\""),
                '\\' => write!(quoted, "\\\\"),
                '\n' => write!(quoted, "\\n"),
                '\r' => write!(quoted, "\\r"),
                '\t' => write!(quoted, "\\t"),
                '\u{8}' => write!(quoted, "\\b"),
                '\u{c}' => write!(quoted, "\\f"),
                c if c < ' ' => write!(quoted, "\\u{:04x}", u32::from(c)),
                c if ascii && !c.is_ascii() && !is_mark(c) => {
                    let mut units = [0; 2];
                    c.encode_utf16(&mut units)
                        .iter()
                        .try_for_each(|unit| write!(quoted, "\\u{unit:04x}"))
                }
                c => write!(quoted, "{c}"),
            };
        }
        quoted.push('"');
        self.push(&quoted)
    }
}

/// A number: whole ones as they are, others with a point or an exponent.
fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(x) if !value.is_integer() => float(x),
        _ => value.to_string(),
    }
}

/// `repr(x)`: the fewest digits that mean this number, with an exponent where Python has one.
fn float(x: f64) -> String {
    if !x.is_finite() {
        let name = if x.is_nan() { "nan" } else { "inf" };
        return if x < 0.0 { format!("-{name}") } else { name.to_owned() };
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{x:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Whether `repr` shows a character as it is.
fn is_printable(c: char) -> bool {
    use GeneralCategory as Is;
    c == ' '
        || is_mark(c)
        || !matches!(
            get_general_category(c),
            Is::Control
                | Is::Format
                | Is::Surrogate
                | Is::PrivateUse
                | Is::Unassigned
                | Is::SpaceSeparator
                | Is::LineSeparator
                | Is::ParagraphSeparator
        )
}

/// Whether it may be the mark of control tokens in what people wrote, which stays as it is.
fn is_mark(c: char) -> bool {
    ('\u{fdd0}'..='\u{fdef}').contains(&c)
}
