//! Runs templates of unknown origin: they read nothing but what they are given, and end.
//!
//! The engine counts each instruction, and each byte of the strings that it makes (`fuel`).
//! What it does not count is counted here: `rewrite.rs` says where lists and maps are made,
//! `value.rs` what they cost, `filters.rs` and `text.rs` what can be called. Before all that
//! [`check`] refuses templates that are too large for a parser that calls itself.

mod filters;
mod operators;
mod python;
mod rewrite;
mod text;
mod value;

use std::sync::Arc;
use std::thread;

use minijinja::machinery::{self, CodeGenerator, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, Value};

use super::data::Data;
use super::moment::Moment;
use value::{List, Map, Meter};

/// Bytes that a rendering may walk over and build, and that much again in strings of the engine; besides
/// so many times what it is given.
const BYTES: usize = 32 << 20;
const TIMES: usize = 32;
/// Bytes of string that the engine takes for as much as an instruction.
const BYTES_PER_FUEL: usize = 64;
/// Bytes of a template at most: those that are known have less than a tenth of that.
const LONGEST: usize = 1 << 18;
/// Tokens between `{{` and `}}` or `{%` and `%}` at most, and `elif` in one template: the parser calls
/// itself for some of them.
const TOKENS: usize = 1000;
const ELIFS: usize = 100;
/// Macros that call each other, times about five.
const RECURSION: usize = 150;
/// Bytes of stack for all that calls itself, several times what it was seen to take.
const STACK: usize = 16 << 20;

/// Why there is no text.
#[derive(Debug)]
pub(super) struct Failure {
    /// The line of the template, from 1; 0 if none is to blame.
    pub(super) line: usize,
    pub(super) why: Why,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is no template, or asks for what is not there.
    Wrong(String),
    /// It gave up on its input.
    Raised(String),
    /// It would go on for too long, or take too much memory.
    Endless,
}

/// What `raise_exception` was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// The text of a template for some variables.
pub(super) fn render(
    source: &str,
    variables: &[(&str, Data)],
    now: Moment,
) -> Result<String, Failure> {
    thread::scope(|scope| {
        let run = || evaluate(source, variables, now);
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run);
        match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(done)) => done,
            // The engine was not written for templates that mean harm.
            Ok(Err(_)) => Err(Failure::wrong(0, "the template engine broke down on it")),
            Err(error) => {
                Err(Failure::wrong(0, format!("there is no thread to run it on: {error}")))
            }
        }
    })
}

fn evaluate(source: &str, variables: &[(&str, Data)], now: Moment) -> Result<String, Failure> {
    // As Jinja reads them, wherever they were written.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = check(&source)?;
    let mut given: usize = 0;
    variables.iter().for_each(|(_, data)| data.strings(&mut |text| given += text.len()));
    let bytes = given.saturating_mul(TIMES).saturating_add(BYTES);
    let meter = Meter::new(bytes);
    let env = environment(&meter, bytes / BYTES_PER_FUEL, now);
    let failed = |error: minijinja::Error| Failure::of(&error, meter.is_spent());
    let variables = variables.iter().map(|(name, data)| Ok((*name, value(&meter, data)?)));
    let variables = variables.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let parsed = machinery::parse(&source, NAME, syntax()).map_err(failed)?;
    let rewritten = rewrite::statement(&parsed);
    let rewritten = rewritten.map_err(|refused| Failure::wrong(refused.line, refused.what))?;
    let mut code = CodeGenerator::new(NAME, &source);
    code.compile_stmt(&rewritten);
    let (code, blocks) = code.finish();
    let mut text = String::new();
    let mut output = machinery::make_string_output(&mut text);
    let root = Value::from_pairs(variables);
    let done = machinery::eval(&env, &code, root, &blocks, &mut output, AutoEscape::None);
    done.map_err(failed)?;
    if meter.is_spent() {
        return Err(Failure { line: 0, why: Why::Endless });
    }
    Ok(text)
}

/// The name of templates in messages of the engine, which we take apart.
const NAME: &str = "template";

/// Blocks end with their lines, as in transformers.
fn syntax() -> SyntaxConfig {
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    syntax.build().unwrap_or_default()
}

/// All that templates can use.
fn environment(meter: &Arc<Meter>, fuel: usize, now: Moment) -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_fuel(Some(fuel as u64));
    env.set_recursion_limit(RECURSION);
    operators::add(&mut env, meter, now);
    filters::add(&mut env, meter);
    filters::add_tests(&mut env);
    let m = Arc::clone(meter);
    env.set_formatter(
        move |out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value| match value.as_str() {
            Some(text) => Ok(out.write_str(text)?),
            None => Ok(out.write_str(&python::text(&m, value)?)?),
        },
    );
    let m = Arc::clone(meter);
    env.set_unknown_method_callback(move |_, value, name, args| text::call(&m, value, name, args));
    env
}

/// An input as a value.
fn value(meter: &Arc<Meter>, data: &Data) -> Result<Value, minijinja::Error> {
    let of = |data: &Data| value(meter, data);
    Ok(match data {
        Data::Null => Value::from(()),
        Data::Bool(is) => Value::from(*is),
        Data::Int(n) => Value::from(*n),
        Data::Float(x) => Value::from(*x),
        Data::Text(text) => Value::from(text.as_str()),
        Data::List(items) => List::make(meter, items.iter().map(of).collect::<Result<_, _>>()?)?,
        Data::Map(entries) => {
            let entry = |(key, data): &(String, Data)| Ok((Value::from(key.as_str()), of(data)?));
            Map::make(
                meter,
                entries.iter().map(entry).collect::<Result<Vec<_>, minijinja::Error>>()?,
            )?
        }
    })
}

/// The template, checked for size; with `{% generation %}`, which marks what a model learns and prints
/// nothing, as `{% if true %}`.
fn check(source: &str) -> Result<String, Failure> {
    if source.len() > LONGEST {
        return Err(Failure::wrong(
            0,
            format!("it has {} bytes, of {LONGEST} at most", source.len()),
        ));
    }
    let (mut tokens, mut elifs, mut starts) = (0, 0, false);
    let mut checked = String::new();
    let mut done = 0;
    for token in machinery::tokenize(source, false, syntax()) {
        let (token, span) = token.map_err(|error| Failure::of(&error, false))?;
        tokens += 1;
        let word = match token {
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => {
                tokens = 0;
                None
            }
            Token::Ident("elif") => {
                elifs += 1;
                None
            }
            Token::Ident("generation") if starts => Some("if true"),
            Token::Ident("endgeneration") if starts => Some("endif"),
            _ => None,
        };
        if tokens > TOKENS || elifs > ELIFS {
            let what = format!("more than {TOKENS} words in a tag, or {ELIFS} `elif`");
            return Err(Failure::wrong(usize::from(span.start_line), what));
        }
        if let Some(word) = word {
            checked.push_str(&source[done..span.start_offset as usize]);
            checked.push_str(word);
            done = span.end_offset as usize;
        }
        starts = matches!(token, Token::BlockStart);
    }
    checked.push_str(&source[done..]);
    Ok(checked)
}

impl Failure {
    fn wrong(line: usize, what: impl Into<String>) -> Failure {
        Failure { line, why: Why::Wrong(what.into()) }
    }

    /// What the engine says, and what made it say so.
    fn of(error: &minijinja::Error, mut endless: bool) -> Failure {
        let line = error.line().unwrap_or(0);
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        while let Some(error) = cause {
            if let Some(Raised(message)) = error.downcast_ref() {
                return Failure { line, why: Why::Raised(short(message)) };
            }
            if let Some(error) = error.downcast_ref::<minijinja::Error>() {
                endless |= error.kind() == ErrorKind::OutOfFuel;
                what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            }
            cause = error.source();
        }
        let why = if endless { Why::Endless } else { Why::Wrong(short(&what)) };
        Failure { line, why }
    }
}

/// The beginning of a message, which can be as long as a template likes.
fn short(message: &str) -> String {
    message.chars().take(1000).collect()
}
