//! What is possible is what the grammar says, by a recognizer that tries everything.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::{Expression, Rules, parse::parse};
use super::{ARITHMETIC, JSON, is_text, matcher};

/// The places where texts of each rule that begin at each place of a text end.
fn reference(rules: &Rules, text: &str) -> BTreeSet<usize> {
    let places = text.len() + 1;
    let mut known = vec![BTreeSet::new(); rules.rules.len() * places];
    loop {
        let mut is_new = false;
        for (number, rule) in rules.rules.iter().enumerate() {
            for at in (0..places).filter(|&at| text.is_char_boundary(at)) {
                let ends = ends(&rule.body, &known, text, at);
                is_new |= ends.len() > known[number * places + at].len();
                known[number * places + at] = ends;
            }
        }
        if !is_new {
            return known[rules.root * places].clone();
        }
    }
}

fn ends(
    expression: &Expression,
    known: &[BTreeSet<usize>],
    text: &str,
    at: usize,
) -> BTreeSet<usize> {
    let rest = &text[at..];
    let next = |part: &Expression, from: BTreeSet<usize>| -> BTreeSet<usize> {
        from.iter().flat_map(|&at| ends(part, known, text, at)).collect()
    };
    match expression {
        Expression::Literal(literal) => {
            rest.starts_with(literal).then(|| at + literal.len()).into_iter().collect()
        }
        Expression::Class(ranges) => rest
            .chars()
            .next()
            .filter(|c| ranges.iter().any(|(first, last)| (first..=last).contains(&c)))
            .map(|c| at + c.len_utf8())
            .into_iter()
            .collect(),
        Expression::Rule(rule) => known[rule * (text.len() + 1) + at].clone(),
        Expression::Sequence(parts) => {
            parts.iter().fold([at].into(), |from, part| next(part, from))
        }
        Expression::Choice(parts) => {
            parts.iter().flat_map(|part| ends(part, known, text, at)).collect()
        }
        Expression::Repeat(part, least, most) => {
            let mut from = BTreeSet::from([at]);
            let mut all = BTreeSet::new();
            // Longer than the text, they add nothing.
            for n in 0..=most.unwrap_or(u32::MAX).min(least + rest.len() as u32 + 1) {
                if n >= *least {
                    all.extend(&from);
                }
                from = next(part, from);
            }
            all
        }
    }
}

/// An expression of a grammar with so many rules that may be named.
fn expression(rules: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let literal = prop::sample::select(vec!["\"a\"", "\"b\"", "\"ab\"", "\"\"", "[ab]", "[^a]"]);
    let leaf = prop_oneof![
        2 => literal.prop_map(str::to_owned),
        1 => prop::sample::select(rules.map(|i| format!("r{i}")).chain(["\"c\"".into()]).collect::<Vec<_>>()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let repetition = prop::sample::select(vec!["*", "+", "?", "{2}", "{1,3}", "{0,5}", "{2,}"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.join(" ")),
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|parts| format!("({})", parts.join(" | "))),
            (inner, repetition).prop_map(|(part, n)| format!("({part}){n}")),
        ]
    })
}

/// All texts of up to so many of these characters.
fn texts(characters: &str, most: usize) -> Vec<String> {
    let mut texts = vec![String::new()];
    let mut longest = 0..1;
    for _ in 0..most {
        let next = texts.len();
        for at in longest {
            let longer = characters.chars().map(|c| format!("{}{c}", texts[at]));
            let longer: Vec<_> = longer.collect();
            texts.extend(longer);
        }
        longest = next..texts.len();
    }
    texts
}

/// Checks whether the texts of a grammar are those that it says, of all of some characters.
fn check_all(grammar: &str, characters: &str, most: usize) {
    let rules = parse(grammar).unwrap();
    let matcher = matcher(grammar).unwrap();
    let mut found = 0;
    for text in texts(characters, most) {
        let expected = reference(&rules, &text).contains(&text.len());
        assert_eq!(is_text(&matcher, &text), expected, "{grammar}: {text:?}");
        found += usize::from(expected);
    }
    assert!(found > 0, "{grammar}: {characters}");
}

#[test]
fn all_short_texts() {
    check_all(ARITHMETIC, "a=+\n", 6);
    check_all(ARITHMETIC, "1= \n", 6);
    check_all(ARITHMETIC, "a()=\n", 6);
    check_all(JSON, "{}\":1", 5);
    check_all(&JSON.replace("root   ::= object", "root ::= value"), "[],1 \"", 4);
    check_all(&JSON.replace("root   ::= object", "root ::= value \"\\n\""), "[1\n ]", 5);
    check_all(&JSON.replace("root   ::= object", "root ::= string | string root"), "\"é\\u\n", 5);
    check_all("root ::= [a-z]+ b\nb ::= \"x\" | \"x\" b", "axy", 5);
    check_all(
        "root ::= item+\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"",
        "- \na",
        6,
    );
    check_all("root ::= \"- \" [^\\n]+ \"\\n\" | root root", "- \na", 6);
    check_all("root ::= [^é]+ b\nb ::= \"x\" b \"è\" | [à-ü]", "xéèa", 5);
    check_all("root ::= ([^a] | \"a\" [^é-ü]) root? \"é\"{0,2}", "aéèb", 5);
    check_all("root ::= . root | \"é\" . \"a\"", "aéè", 6);
    check_all("root ::= ([ab]{0,3} \"b\"){0,2} c\nc ::= \"(\" c | \"b\" | \"a\"{2} ", "ab(", 7);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Without recursion, texts are exactly those of the grammar.
    #[test]
    fn regular_grammars(root in expression(0..2), r0 in expression(1..2), r1 in expression(0..0)) {
        let grammar = format!("root ::= {root}\nr0 ::= {r0}\nr1 ::= {r1}");
        let rules = parse(&grammar).unwrap();
        let matcher = matcher(&grammar).unwrap();
        for text in texts("abc", 5) {
            let expected = reference(&rules, &text).contains(&text.len());
            prop_assert_eq!(is_text(&matcher, &text), expected, "{} {:?}", grammar, text);
        }
    }

    /// With it, they are too.
    #[test]
    fn recursive_grammars(root in expression(0..2), r0 in expression(0..2), r1 in expression(0..2)) {
        let grammar = format!("root ::= {root}\nr0 ::= {r0}\nr1 ::= {r1}");
        let rules = parse(&grammar).unwrap();
        let matcher = match matcher(&grammar) {
            Ok(matcher) => matcher,
            Err(why) => {
                prop_assert!(why.contains("has no end"), "{}", why);
                for text in texts("abc", 5) {
                    prop_assert!(!reference(&rules, &text).contains(&text.len()));
                }
                return Ok(());
            }
        };
        for text in texts("abc", 5) {
            let expected = reference(&rules, &text).contains(&text.len());
            prop_assert_eq!(is_text(&matcher, &text), expected, "{} {:?}", grammar, text);
        }
    }
}
