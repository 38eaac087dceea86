//! Constraints that cannot be used, and those that turn out to take too much.

use bitnet_inference::{Constraint, Engine, Error, Generation, Sampling};
use serde_json::{Value, json};

use super::{engine, gbnf, regex, request, run, samplings};

/// Why a constraint is refused, before anything is generated.
fn refused(engine: &Engine, constraint: &Constraint) -> String {
    let request = request(engine, constraint, Sampling::greedy(), 9);
    match Generation::new(engine, request).map(|_| ()) {
        Err(Error::Constraint { why, .. }) => why,
        other => panic!("{constraint:?}: {other:?}"),
    }
}

#[test]
fn schemas_that_cannot_be_used() {
    let engine = engine();
    let string = |fields: Value| {
        let mut schema = json!({ "type": "string" });
        schema.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        schema
    };
    for (schema, why) in [
        (json!(false), "schema is false"),
        (json!(3), "schema must be an object or boolean"),
        (json!([]), "schema must be an object or boolean"),
        (json!({ "enum": [] }), "anyOf is empty"),
        (
            json!({ "type": "integer", "minimum": 5, "maximum": 3 }),
            "minimum (5) is greater than maximum (3)",
        ),
        (
            string(json!({ "minLength": 5, "maxLength": 3 })),
            "minLength (5) is greater than maxLength (3)",
        ),
        (string(json!({ "minLength": -1 })), "Expected positive integer for 'minLength'"),
        (string(json!({ "format": "foo" })), "Unknown format: foo"),
        (string(json!({ "pattern": "([" })), "regex parse error: unclosed character class"),
        (string(json!({ "pattern": "(?=a)b" })), "look-around"),
        (string(json!({ "pattern": "^[^\\s\\S]$" })), "Regex is empty"),
        (string(json!({ "pattern": "a".repeat(70_000) })), "a pattern has more than 65536 bytes"),
    ] {
        let found = refused(&engine, &Constraint::JsonSchema(schema.clone()));
        assert!(found.contains(why) && found.len() < 400, "{schema}: {found}");
    }
    let requires = json!({ "type": "object", "required": ["x"], "additionalProperties": false });
    assert!(refused(&engine, &Constraint::JsonSchema(requires)).contains("'x' is unsatisfiable"));
}

#[test]
fn schemas_with_what_is_not_supported() {
    let engine = engine();
    for (schema, why) in [
        (json!({ "allOf": [{ "type": "string" }, { "type": "number" }] }), "incompatible types"),
        (json!({ "type": "array", "uniqueItems": true }), "Unimplemented keys: [\"uniqueItems\"]"),
        (json!({ "not": { "type": "string" } }), "Unimplemented keys: [\"not\"]"),
        (json!({ "type": "strin" }), "Invalid type: strin"),
        (json!({ "$ref": "#/$defs/x" }), "not found in '#/$defs/x'"),
        (
            json!({ "$ref": "https://example.com/x.json" }),
            "Only absolute $ref's (#/...) are supported",
        ),
        (json!({ "$ref": 3 }), "$ref must be a string"),
        (json!({ "$ref": "#" }), "its values have no end: there is no text that it describes"),
        (
            json!({ "type": "array", "items": { "$ref": "#" }, "minItems": 1 }),
            "its values have no end: there is no text that it describes",
        ),
        (
            json!({ "type": "integer", "minimum": -1e30 }),
            "minimum is -1e30: it can be 1e18 away from 0",
        ),
        (json!({ "type": "integer", "multipleOf": 0 }), "multipleOf is 0"),
        (
            json!({ "type": "integer", "multipleOf": 4_000_000_000_u64 }),
            "multipleOf 4e9 takes too many digits",
        ),
        (
            json!({ "type": "number", "multipleOf": 1e-300 }),
            "multipleOf 1e-300 takes too many digits",
        ),
        (
            json!({ "allOf": [{ "type": "integer", "multipleOf": 99_999 }, { "multipleOf": 99_998 }] }),
            "takes too many digits, alone or with others",
        ),
        (json!({ "x-guidance": { "whitespace_pattern": "((" } }), "unclosed group"),
    ] {
        let found = refused(&engine, &Constraint::JsonSchema(schema.clone()));
        assert!(found.contains(why) && found.len() < 400, "{schema}: {found}");
    }
}

#[test]
fn schemas_that_are_too_large() {
    let engine = engine();
    let refused = |schema| refused(&engine, &Constraint::JsonSchema(schema));
    let nested = |n| {
        (0..n)
            .fold(json!({ "type": "null" }), |inner, _| json!({ "type": "array", "items": inner }))
    };
    let request = request(&engine, &Constraint::JsonSchema(nested(100)), Sampling::greedy(), 9);
    assert!(run(&engine, request).is_ok());
    assert!(refused(nested(130)).contains("more than 128 values within each other"));
    let chain = |n: usize| {
        let link = |i| {
            (
                format!("d{i}"),
                json!({ "type": "array", "items": { "$ref": format!("#/$defs/d{}", i + 1) } }),
            )
        };
        let links: serde_json::Map<_, _> = (0..n).map(link).collect();
        let mut schema = json!({ "$ref": "#/$defs/d0", "$defs": links });
        schema["$defs"][format!("d{n}")] = json!({ "type": "null" });
        schema
    };
    let long = self::request(&engine, &Constraint::JsonSchema(chain(1500)), Sampling::greedy(), 9);
    assert!(run(&engine, long).is_ok());
    assert!(refused(chain(5000)).contains("more than 5000 levels"));
}

#[test]
fn schemas_that_take_too_long() {
    let engine = engine();
    let refused = |schema| refused(&engine, &Constraint::JsonSchema(schema));
    let fields = |n, prefix: &str| -> Value {
        (0..n).map(|i| (format!("{prefix}{i}"), json!({ "type": "null" }))).collect()
    };
    assert!(
        refused(json!({ "properties": fields(401, "p") })).contains("more than 400 properties")
    );
    assert!(
        refused(json!({ "patternProperties": fields(101, "^p") }))
            .contains("100 patternProperties")
    );
    let values: Vec<_> = (0..200_000).collect();
    assert!(refused(json!({ "enum": values })).contains("too large"));
    let any = |i| {
        let one = |name| json!({ "type": "object", "required": [format!("{name}{i}")] });
        json!({ "anyOf": [one("a"), one("b")] })
    };
    let all: Vec<_> = (0..40).map(any).collect();
    assert!(refused(json!({ "allOf": all })).contains("too large"));
    let names: Vec<_> = (0..10_001).map(|i| format!("p{i}")).collect();
    assert!(refused(json!({ "required": names })).contains("10000 properties and patterns"));
    // Each is soon met, but not all at once.
    let pattern = |i| json!({ "type": "string", "pattern": format!(".*a.{{{i}}}b.*") });
    for most in [20, 60] {
        let all: Vec<_> = (5..most).map(pattern).collect();
        assert!(refused(json!({ "allOf": all })).contains("patterns at once, of 8 at most"));
    }
    let both = |letter| -> Value {
        let part = |i: u32| format!("[a{}]{letter}{i}", char::from_u32(0x4e00 + i).unwrap());
        json!({ "type": "string", "pattern": (0..400).map(part).collect::<Vec<_>>().join("|") })
    };
    assert!(refused(json!({ "allOf": [both('x'), both('y')] })).contains("too many alternatives"));
}

#[test]
fn regular_expressions_that_cannot_be_used() {
    let engine = engine();
    for (regex, why) in [
        ("a(b", "unclosed group"),
        ("abc\\", "incomplete escape sequence"),
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(a)\\1", "backreferences are not supported"),
        ("\\bfox\\b", "not supported"),
        ("a$b", "not supported"),
        ("[^\\s\\S]", "there is no text that it describes"),
        ("a[^\\s\\S]b", "there is no text that it describes"),
        ("(?-u)\\xff", "invalid UTF-8"),
        ("a(?P<stop>b)", "a group cannot be named \"stop\""),
        (&"(".repeat(1000), "regex parse error"),
        (&"a".repeat(70_000), "it has 70000 bytes, of 65536 at most"),
    ] {
        let found = refused(&engine, &self::regex(regex));
        assert!(found.contains(why) && found.len() < 400, "{regex}: {found}");
    }
}

#[test]
fn grammars_that_cannot_be_used() {
    let engine = engine();
    for (grammar, why) in [
        ("root ::= (\"a\"", "line 1, column 10: there is no ) to this ("),
        ("root ::= root", "the rule \"root\" has no end: there is no text that it describes"),
    ] {
        assert_eq!(refused(&engine, &gbnf(grammar)), why);
    }
    for (grammar, why) in [
        ("start: foo".to_owned(), "unknown name: \"foo\""),
        (String::new(), "no start rule found"),
        ("start: ((".to_owned(), "Expected token"),
        ("start: /a(/".to_owned(), "unclosed group"),
        (format!("start: X\nX: /a/{}", " & /.*b.*/".repeat(8)), "9 patterns at once, of 8 at most"),
        (
            format!("start: %json {}", json!({ "allOf": vec![json!({ "minimum": 1e30 })] })),
            "minimum is 1e30",
        ),
        ("a: \"b\"\n".repeat(6000), "its lines and brackets are 6000, of 5000 at most"),
    ] {
        let found = refused(&engine, &Constraint::Lark(grammar));
        assert!(found.contains(why) && found.len() < 400, "{found}");
    }
    let error = Generation::new(&engine, request(&engine, &gbnf(""), Sampling::greedy(), 9));
    assert_eq!(
        error.map(|_| ()).unwrap_err().to_string(),
        "the grammar cannot be used: there is no rule \"root\", which a text begins with"
    );
}

/// What cannot be told in advance ends when it is too much, and the text before it is there.
#[test]
fn what_takes_too_much_ends() {
    let engine = engine();
    let sampling = samplings(&engine).remove(4);
    for constraint in [
        gbnf("root ::= ([a-z ]{0,50000}){0,50000}"),
        gbnf("root ::= (a{0,50000}){0,50000}\na ::= \"(\" a \")\" | \"\" | [a-z ]"),
    ] {
        match run(&engine, request(&engine, &constraint, sampling.clone(), 300)) {
            Err(Error::Constraint { why, .. }) => assert!(why.len() < 400, "{why}"),
            other => panic!("{constraint:?}: {other:?}"),
        }
    }
    for constraint in
        [regex("(a{1000}){1000}"), regex("(a|a)*b"), regex("(([ab]{0,1000}){0,1000}){0,1000}c")]
    {
        run(&engine, request(&engine, &constraint, sampling.clone(), 300)).unwrap();
    }
}
