//! Texts are what they must be, however they are drawn; constraints that cannot be used are refused.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod refused;

use bitnet_inference::{Constraint, Engine, Error, Finish, Generation, Options, Request, Sampling};
use common::{DEMO, load};
use serde_json::{Value, json};

fn engine() -> Engine {
    load(DEMO, &Options { threads: Some(2), ..Options::default() })
}

fn gbnf(grammar: &str) -> Constraint {
    Constraint::Gbnf(grammar.to_owned())
}

fn regex(regex: &str) -> Constraint {
    Constraint::Regex(regex.to_owned())
}

/// What a request gave: its tokens, its text and why it ended.
type Outcome = (Vec<u32>, String, Finish);

fn run(engine: &Engine, request: Request) -> Result<Outcome, Error> {
    let mut generation = Generation::new(engine, request)?;
    let mut text = String::new();
    while let Some(token) = generation.next(|| false)? {
        text.push_str(&token.text);
    }
    let end = generation.end().unwrap();
    text.push_str(&end.text);
    Ok((generation.generated().to_vec(), text, end.finish.clone()))
}

/// A request of up to so many tokens.
fn request(engine: &Engine, constraint: &Constraint, sampling: Sampling, limit: usize) -> Request {
    let prompt = engine.encode("Once upon a time there was a king who said: ").unwrap();
    Request { constraint: Some(constraint.clone()), ..Request::new(prompt, sampling, limit) }
}

/// Greedy, and with seeds at a temperature at which much is possible; half of them like to end things.
fn samplings(engine: &Engine) -> Vec<Sampling> {
    let id = |text: &str| engine.encode(text).unwrap().pop().unwrap();
    let ends = ["}", "]", ")", "=", "\""].map(|text| (id(text), 9.0));
    let one = |seed: u64| match seed {
        0 => Sampling::greedy(),
        _ => Sampling {
            temperature: 1.5,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed,
            logit_bias: ends.into_iter().filter(|_| seed % 2 == 1).collect(),
            ..Sampling::default()
        },
    };
    (0..5).map(one).collect()
}

/// Checks texts that have come to their end, of which there must be some, and those that were cut off,
/// which must be the beginning of one. With guesses, the tokens are the same.
fn check(constraint: &Constraint, is_text: impl Fn(&str) -> bool) {
    let engine = engine();
    let (mut ended, mut cut_off) = (0, 0);
    for sampling in samplings(&engine) {
        for (limit, ignore_end) in [(250, false), (250, true), (3, false)] {
            let request = request(&engine, constraint, sampling.clone(), limit);
            let request = Request { ignore_end, ..request };
            let outcome = run(&engine, request.clone()).unwrap();
            let guessed = run(&engine, Request { draft: 8, ..request }).unwrap();
            assert_eq!(guessed, outcome, "{constraint:?}");
            let (tokens, text, finish) = outcome;
            match finish {
                Finish::Stop => {
                    assert!(is_text(&text), "{constraint:?}: {text:?}");
                    ended += 1;
                }
                Finish::Length => {
                    assert_eq!(tokens.len(), limit);
                    cut_off += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(ended > 1, "{constraint:?}: {ended} texts ended, {cut_off} did not");
}

fn check_schema(schema: Value, is_text: impl Fn(&Value) -> bool) {
    check(&Constraint::JsonSchema(schema), |text| {
        serde_json::from_str(text).is_ok_and(|value| is_text(&value))
    });
}

#[test]
fn json_by_a_grammar() {
    let grammar = r#"
        root   ::= object
        value  ::= object | array | string | number | ("true" | "false" | "null") ws
        object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value){0,3} )? "}"
        array  ::= "[" ws ( value ("," ws value)* )? "]" ws
        string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-f]{4}) ){0,20} "\"" ws
        number ::= "-"? ("0" | [1-9] [0-9]{0,5}) ("." [0-9]{1,3})? ws
        ws     ::= [ \t\n]{0,2}
        "#;
    // serde_json takes no halves of surrogate pairs.
    let grammar = gbnf(&grammar.replace(r#""u" [0-9a-f]{4}"#, r#""u00" [0-9a-f]{2}"#));
    check(&grammar, |text| {
        serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
    });
}

/// Goes behind an expression of sums and products, if there is one.
fn expression(text: &mut &[u8]) -> bool {
    loop {
        match text {
            [b'(', rest @ ..] => {
                *text = rest;
                if !expression(text) || text.first() != Some(&b')') {
                    return false;
                }
                *text = &text[1..];
            }
            [b'0'..=b'9', ..] => {
                let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
                *text = &text[digits..];
            }
            _ => return false,
        }
        match text {
            [b'+' | b'-' | b'*' | b'/', rest @ ..] => *text = rest,
            _ => return true,
        }
    }
}

#[test]
fn arithmetic() {
    let grammar = r#"
        root ::= expr "=" [0-9]{1,3}
        expr ::= expr [-+] term | term
        term ::= term [*/] factor | factor
        factor ::= [0-9]{1,3} | "(" expr ")""#;
    check(&gbnf(grammar), |text| {
        let (left, right) = text.split_once('=').unwrap_or_default();
        let mut left = left.as_bytes();
        expression(&mut left) && left.is_empty() && right.parse::<u16>().is_ok_and(|n| n < 1000)
    });
}

#[test]
fn moves_of_chess() {
    let grammar = r##"
        # Two moves, which need not be legal.
        root    ::= "1. " move " " move "\n" ("2. " move " " move "\n")?
        move    ::= (pawn | nonpawn | castle) [+#]?
        pawn    ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBQR])?
        nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
        castle  ::= "O-O" "-O"?
        "##;
    check(&gbnf(grammar), |text| {
        let is_move = |one: &str| {
            let one = one.strip_suffix(['+', '#']).unwrap_or(one);
            let castles = ["O-O", "O-O-O"].contains(&one);
            let body = one.trim_start_matches(['N', 'B', 'K', 'Q', 'R']);
            let body = body.split_once('=').map_or(body, |(body, _)| body);
            let end: Vec<_> = body.bytes().rev().take(2).collect();
            castles || matches!(end[..], [b'1'..=b'8', b'a'..=b'h']) && body.len() <= 5
        };
        let lines: Vec<_> = text.lines().collect();
        text.ends_with('\n')
            && (1..=2).contains(&lines.len())
            && lines.iter().zip(["1. ", "2. "]).all(|(line, number)| {
                let moves = line.strip_prefix(number).unwrap_or_default();
                moves.split(' ').count() == 2 && moves.split(' ').all(is_move)
            })
    });
}

#[test]
fn lists() {
    let grammar =
        "root ::= item{2,5}\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]{1,40} \"\\n\"";
    check(&gbnf(grammar), |text| {
        let items: Vec<_> = text.split_terminator('\n').collect();
        let is_item = |item: &&str| {
            item.strip_prefix("- ").is_some_and(|item| (1..=40).contains(&item.chars().count()))
        };
        (2..=5).contains(&items.len()) && items.iter().all(is_item) && text.ends_with('\n')
    });
}

/// The vocabulary has no tokens for most of these: their bytes are several.
#[test]
fn characters_of_many_bytes() {
    let engine = engine();
    let emoji = engine.encode("😀").unwrap();
    assert!(emoji.len() > 2, "{emoji:?}");
    check(
        &gbnf("root ::= \"😀 \" [α-ω]{3} [あ-ん\\U0001F300-\\U0001F5FF]{2,3} \"é…\""),
        |text| {
            let middle = text.strip_prefix("😀 ").and_then(|text| text.strip_suffix("é…"));
            let characters: Vec<_> = middle.unwrap_or_default().chars().collect();
            let is_sign = |c: &char| matches!(c, 'あ'..='ん' | '\u{1F300}'..='\u{1F5FF}');
            matches!(characters.len(), 5 | 6)
                && characters[..3].iter().all(|c| ('α'..='ω').contains(c))
                && characters[3..].iter().all(is_sign)
        },
    );
    check(&regex("(日本|[^\\x00-\\x7f]){4}"), |text| text.chars().all(|c| !c.is_ascii()));
    // Cut off in the middle of a character: what there is of it stands for it.
    let request = request(&engine, &gbnf("root ::= \"😀\""), Sampling::greedy(), 1);
    assert_eq!(
        run(&engine, request).unwrap(),
        (emoji[1..2].to_vec(), "\u{fffd}".into(), Finish::Length)
    );
}

#[test]
fn regular_expressions() {
    check(&regex("[0-9]{4}-(0[1-9]|1[0-2])"), |text| {
        let (year, month) = text.split_once('-').unwrap_or_default();
        year.len() == 4 && year.parse::<u16>().is_ok() && matches!(month.parse(), Ok(1..=12))
    });
    check(&regex("^(yes|no|perhaps)/\\n?$"), |text| {
        ["yes/", "no/", "perhaps/"].contains(&text.strip_suffix('\n').unwrap_or(text))
    });
    check(&regex("[a-z]* ?the [a-z]+!"), |text| text.contains("the ") && text.ends_with('!'));
}

#[test]
fn objects_by_a_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 2, "maxLength": 12 },
            "age": { "type": "integer", "minimum": -3, "maximum": 117 },
            "kind": { "enum": ["fox", "hare", 3, null] },
            "note": { "type": "boolean" },
        },
        "required": ["name", "age", "kind"],
        "additionalProperties": false,
    });
    check_schema(schema, |value| {
        let fields = value.as_object().unwrap();
        let length = value["name"].as_str().map_or(0, |name| name.chars().count());
        let kinds = [json!("fox"), json!("hare"), json!(3), json!(null)];
        (2..=12).contains(&length)
            && value["age"].as_i64().is_some_and(|age| (-3..=117).contains(&age))
            && fields.get("kind").is_some_and(|kind| kinds.contains(kind))
            && fields.get("note").is_none_or(Value::is_boolean)
            && fields.keys().all(|key| ["name", "age", "kind", "note"].contains(&key.as_str()))
    });
}

#[test]
fn arrays_by_a_schema() {
    let rows = json!({ "type": "array", "minItems": 1, "maxItems": 2, "items": { "type": "integer", "minimum": 10, "maximum": 25 } });
    let schema = json!({ "type": "array", "minItems": 2, "maxItems": 3, "items": rows });
    check_schema(schema, |value| {
        let is_row = |row: &Value| {
            let row = row.as_array().unwrap();
            (1..=2).contains(&row.len()) && row.iter().all(|n| matches!(n.as_i64(), Some(10..=25)))
        };
        let rows = value.as_array().unwrap();
        (2..=3).contains(&rows.len()) && rows.iter().all(is_row)
    });
}

#[test]
fn patterns_and_choices_by_a_schema() {
    check_schema(json!({ "type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$" }), |value| {
        let (letters, digits) = value.as_str().unwrap().split_once('-').unwrap_or_default();
        let is_upper = letters.bytes().all(|byte| byte.is_ascii_uppercase());
        letters.len() == 2 && is_upper && digits.len() == 3 && digits.parse::<u16>().is_ok()
    });
    let either = json!({ "anyOf": [{ "const": { "a": [1, "é😀"] } }, { "type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 9 }] });
    check_schema(either, |value| {
        let is_number = |n: f64| (0.0..=9.0).contains(&n) && (n * 4.0).fract() == 0.0;
        *value == json!({ "a": [1, "é😀"] }) || value.as_f64().is_some_and(is_number)
    });
    let tree = json!({
        "$ref": "#/$defs/tree",
        "$defs": { "tree": {
            "type": "object",
            "properties": { "left": { "anyOf": [{ "$ref": "#/$defs/tree" }, { "type": "null" }] } },
            "required": ["left"],
            "additionalProperties": false,
        } },
    });
    check_schema(tree, |mut value| {
        while let Some(fields) = value.as_object() {
            assert_eq!(fields.len(), 1);
            value = &fields["left"];
        }
        value.is_null()
    });
}

#[test]
fn any_json() {
    check_schema(json!({}), |_| true);
    check(&Constraint::json_object(), |text| {
        serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
    });
}

#[test]
fn grammars_of_llguidance() {
    let grammar = "start: \"<\" (WORD | WORD start) \">\"\nWORD: /[a-z]{1,4}/ \";\"";
    check(&Constraint::Lark(grammar.into()), |text| {
        let (open, close) = (text.matches('<').count(), text.matches('>').count());
        text.starts_with('<') && text.ends_with('>') && open == close && !text.contains("<>")
    });
}

/// Where only the empty text is possible, there is nothing to generate.
#[test]
fn empty_texts() {
    let engine = engine();
    for constraint in
        [gbnf("root ::= \"\""), gbnf("root ::= (\"\" | \"\")*"), regex(""), regex("()*")]
    {
        let request = request(&engine, &constraint, Sampling::greedy(), 9);
        let outcome = run(&engine, request).unwrap();
        assert_eq!(outcome, (Vec::new(), String::new(), Finish::Stop), "{constraint:?}");
    }
}
