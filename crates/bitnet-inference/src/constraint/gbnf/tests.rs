//! Grammars read, refused, and matched byte by byte.

use llguidance::api::ParserLimits;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::{Matcher, ParserFactory};

use super::{LONGEST, compile};

mod exact;

/// A grammar for texts byte by byte.
fn matcher(grammar: &str) -> Result<Matcher, String> {
    let environment = ApproximateTokEnv::single_byte_env();
    let mut factory = ParserFactory::new_simple(&environment).map_err(|e| e.to_string())?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    let grammar = compile(grammar, factory.limits())?;
    let matcher = Matcher::new(factory.create_parser_from_init_default(grammar));
    matcher.get_error().map_or(Ok(matcher), Err)
}

/// Whether the whole of a text is one of a grammar.
fn is_text(matcher: &Matcher, text: &str) -> bool {
    let mut matcher = matcher.deep_clone();
    for byte in text.bytes() {
        let allowed = matcher.compute_mask_or_eos().unwrap();
        if matcher.is_stopped() || !allowed.is_allowed(byte.into()) {
            return false;
        }
        matcher.consume_token(byte.into()).unwrap();
    }
    matcher.is_stopped() || matcher.is_accepting().unwrap()
}

/// Checks which texts are those of a grammar.
fn check(grammar: &str, texts: &[&str], others: &[&str]) {
    let matcher = matcher(grammar).unwrap_or_else(|why| panic!("{grammar}: {why}"));
    for text in texts {
        assert!(is_text(&matcher, text), "{grammar}: {text:?} is one");
    }
    for text in others {
        assert!(!is_text(&matcher, text), "{grammar}: {text:?} is none");
    }
}

#[test]
fn literals_and_classes() {
    check(r#"root ::= "a\n\t\r\\\"\[\]\x41\u00e9\U0001F600""#, &["a\n\t\r\\\"[]Aé😀"], &["a"]);
    check(r#"root ::= "" "ab" """#, &["ab"], &["", "a", "abb"]);
    check(r"root ::= [a-cx]", &["a", "b", "c", "x"], &["", "d", "ab", "-"]);
    check(r"root ::= [a\-c]", &["a", "-", "c"], &["b"]);
    check(r"root ::= [-a] [a-] [a-c-]", &["-aa", "a--", "--b"], &["b-a", "ab-"]);
    check(r"root ::= [^a-z\n]", &["A", "é", "😀", "\0"], &["b", "\n", ""]);
    check(r"root ::= [\]\[\\^]", &["]", "[", "\\", "^"], &["a"]);
    check(r"root ::= [^^]", &["a"], &["^"]);
    check(r#"root ::= ["/#|(]"#, &["\"", "/", "#", "|", "("], &["a"]);
    check(r"root ::= [α-ω😀-😅]", &["α", "λ", "😃"], &["a", "😆", "\u{3c0}\u{3c0}"]);
    check(r"root ::= [\u4e00-\u9fff\U0001F300-\U0001F5FF]", &["中", "🌍"], &["a", "😀"]);
    check("root ::= . .", &["ab", "\n😀"], &["a", "abc"]);
    // Over the surrogates.
    check(r"root ::= [\u0100-\uffff]", &["Ā", "\u{d7ff}", "\u{e000}"], &["a", "😀"]);
}

#[test]
fn repetitions() {
    check(r#"root ::= "a"*"#, &["", "a", "aaaa"], &["b"]);
    check(r#"root ::= "ab"+ "c""#, &["abc", "ababc"], &["c", "abbc"]);
    check(r#"root ::= "a"? "b""#, &["b", "ab"], &["aab", "a"]);
    check(r#"root ::= "a"{2}"#, &["aa"], &["a", "aaa"]);
    check(r#"root ::= "a" { 2 , 4 }"#, &["aa", "aaa", "aaaa"], &["a", "aaaaa"]);
    check(r#"root ::= ("a" | "b"){2,}"#, &["aa", "abab"], &["a", ""]);
    check(r#"root ::= "a"{0} "b"{0,0} "c""#, &["c"], &["a", "bc", ""]);
    check(r#"root ::= ("a"?){3}"#, &["", "a", "aaa"], &["aaaa"]);
    check(r#"root ::= "a"*?+"#, &["", "aaa"], &["b"]);
    // The longest is not the right one.
    check(r#"root ::= [a-z]* "b""#, &["b", "abcb", "bb"], &["", "abc"]);
}

/// The same for rules that are not regular.
#[test]
fn repetitions_of_recursive_rules() {
    let nested = r#"x ::= "(" x ")" | "" | "a""#;
    for (n, repetition) in [(0..=5, "{0,5}"), (3..=3, "{3}"), (2..=7, "{2,7}"), (6..=6, "{6,6}")] {
        let matcher = matcher(&format!("root ::= (\"<\" x \">\"){repetition}\n{nested}")).unwrap();
        for count in 0..9 {
            let text = "<(a)>".repeat(count);
            assert_eq!(is_text(&matcher, &text), n.contains(&count), "{repetition} {count}");
        }
    }
    let at_least = format!("root ::= x{{2,}}\n{nested}");
    check(&at_least, &["", "aa", "((a))()aaa"], &["(", "(a"]);
    let many = format!("root ::= (\"<\" x \">\"){{1,50000}}\n{nested}");
    check(&many, &["<>", &"<a>".repeat(100)], &["", "<>a"]);
    check(&format!("root ::= x+ \"!\"\n{nested}"), &["!", "a()!"], &["a"]);
    check(&format!("root ::= (x | \"b\")? \"!\"\n{nested}"), &["!", "b!", "(a)!"], &["bb!"]);
    check(&format!("root ::= x{{0}} \"!\"\n{nested}"), &["!"], &["a!"]);
}

#[test]
fn layout() {
    let grammar = "# a comment
        root  ::=   # another \" one
            first   # and
          | \"b\"
            second-2
        first ::= ( \"a\" |
            \"c\"  # \")
        )\r\nsecond-2::=\"d\"|\"e\"# the end";
    check(grammar, &["a", "c", "bd", "be"], &["b", "d", ""]);
    check("root ::= a_1 a_1 \n a_1 ::= | \"x\"", &["", "x", "xx"], &["xxx"]);
    check("root::=\"a\"\nunused::=root root", &["a"], &["aa"]);
}

const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"#;

#[test]
fn json() {
    let texts = [
        "{}",
        "{ }\n",
        r#"{"a":1}"#,
        "{ \"a\": [1, -2.5e+7, true, null, \"\\u00e9 \\\"\", [], [[ ]]],\n  \"é\": {\"b\": {} } }",
    ];
    let others =
        ["", "[]", "{", r#"{"a"}"#, r#"{"a":01}"#, r#"{"a":1,}"#, "{}x", "{\"\n\":1}", "{}  "];
    check(JSON, &texts, &others);
    check(&JSON.replace(r#"| " " | "\n" [ \t]{0,20}"#, r"[ \t\n]*"), &texts, &others[..8]);
}

#[test]
fn recursion() {
    let sums = r#"
        root ::= expr
        expr ::= expr [-+] term | term
        term ::= term [*/] factor | factor
        factor ::= [0-9]+ | "(" expr ")" | "-" factor"#;
    check(sums, &["1", "1+2*3", "(1)", "--1-(2/(34+5))*-6"], &["", "1+", "(1", "1)", "()", "1 "]);
    let right = r#"root ::= "a" root "b" | "c""#;
    check(right, &["c", "acb", "aacbb"], &["", "ac", "acbb"]);
    let both = r#"root ::= root root | "a""#;
    check(both, &["a", "aaaaaaaa"], &["", "b"]);
    let each_other = "root ::= a?\na ::= \"(\" b \")\"\nb ::= \"[\" a? \"]\" | \"x\"";
    check(each_other, &["", "(x)", "([(x)])", "([])"], &["()", "(", "[]", "([)]"]);
    // Nothing, in many ways.
    let empty = "root ::= a a a\na ::= b | c\nb ::= a b | \"\"\nc ::= \"x\" | ";
    check(empty, &["", "x", "xxx", "xxxxxxx"], &["y"]);
}

/// Rules that call themselves before anything else.
#[test]
fn loops() {
    check("root ::= root | \"x\"", &["x"], &["", "xx"]);
    check("root ::= a\na ::= root | \"x\"", &["x"], &["", "xx"]);
    check("root ::= a\na ::= b\nb ::= a | \"x\"", &["x"], &["", "xx"]);
    check("root ::= root* \"x\"", &["x", "xxx"], &[""]);
    check("root ::= (root*)* | \"x\"", &["", "x", "xxx"], &["y"]);
    check("root ::= \"\"", &[""], &["a"]);
    check("root ::=", &[""], &["a"]);
    check("root ::= (\"\" | \"\")*", &[""], &["a"]);
    check("root ::= root |", &[""], &["a"]);
}

/// What can never end is left out.
#[test]
fn texts_without_end() {
    check("root ::= \"a\" | \"b\" more\nmore ::= \"c\" more", &["a"], &["b", "bc"]);
    check("root ::= more* \"a\"\nmore ::= \"c\" more", &["a"], &["ca"]);
    check("root ::= (\"b\" more | \"c\") \"a\"\nmore ::= more \"c\"", &["ca"], &["ba", "bca"]);
    for grammar in ["root ::= root", "root ::= \"a\" root", "root ::= a\na ::= b+\nb ::= a \"x\""] {
        assert_eq!(
            compile(grammar, &ParserLimits::default()).err().unwrap(),
            "the rule \"root\" has no end: there is no text that it describes"
        );
    }
}

#[test]
fn damaged_grammars() {
    for (grammar, why) in [
        ("", "there is no rule \"root\", which a text begins with"),
        ("a ::= \"b\"", "there is no rule \"root\", which a text begins with"),
        ("root ::= a", "line 1, column 10: there is no rule \"a\""),
        ("root ::= \"é\" a\nb ::= c", "line 1, column 14: there is no rule \"a\""),
        ("root ::= \"a\"\n\nroot ::= \"b\"", "line 3, column 1: there are two rules \"root\""),
        ("root", "line 1, column 5: ::= is expected behind \"root\""),
        (
            "root ::= \"a\"\n b = \"c\"",
            "line 2, column 4: '=' is none of a name, text in \"\", [], () or .",
        ),
        ("::= \"a\"", "line 1, column 1: a rule is expected, as in name ::= \"text\""),
        ("root ::= \"a\n", "line 1, column 10: there is no second \" to this one"),
        ("root ::= \"a\\", "line 1, column 12: there is nothing behind this \\"),
        ("root ::= \"\\q\"", "line 1, column 11: \\q is no escape: a \\ is \\\\"),
        ("root ::= \"\\x4\"", "line 1, column 11: this escape needs 2 hexadecimal digits"),
        ("root ::= \"\\u00é\"", "line 1, column 11: this escape needs 4 hexadecimal digits"),
        ("root ::= \"\\u+123\"", "line 1, column 11: this escape needs 4 hexadecimal digits"),
        ("root ::= \"\\uD83D\"", "line 1, column 11: there is no character U+D83D"),
        ("root ::= \"\\UFFFFFFFF\"", "line 1, column 11: there is no character U+FFFFFFFF"),
        ("root ::= [a-z", "line 1, column 10: there is no ] to this ["),
        ("root ::= [a-", "line 1, column 10: there is no ] to this ["),
        ("root ::= [xz-a]", "line 1, column 12: 'a' comes before 'z': no range"),
        ("root ::= []", "line 1, column 10: there is no character in this class"),
        ("root ::= [^\\x00-\\U0010FFFF]", "line 1, column 10: there is no character in this class"),
        ("root ::= (\"a\"", "line 1, column 10: there is no ) to this ("),
        ("root ::= (\"a\"\nb ::= \"c\")", "line 1, column 10: there is no ) to this ("),
        ("root ::= \"a\")", "line 1, column 13: there is no ( to this )"),
        ("root ::= \"a\" | *", "line 1, column 16: there is nothing to repeat"),
        ("root ::= \"a\"{}", "line 1, column 14: a number is expected"),
        ("root ::= \"a\"{,2}", "line 1, column 14: a number is expected"),
        ("root ::= \"a\"{1,2", "line 1, column 13: a repetition is {m}, {m,} or {m,n}"),
        (
            "root ::= \"a\"{3,2}",
            "line 1, column 13: 2 is less than 3: a repetition is {least,most}",
        ),
        ("root ::= \"a\"{50001}", "line 1, column 14: repetitions go up to 50000"),
        ("root ::= \"a\"{99999999999999}", "line 1, column 14: repetitions go up to 50000"),
        (
            "root ::= \"a\"*********",
            "line 1, column 21: there are too many repetitions of the same",
        ),
        (
            "root ::= <think>",
            "line 1, column 10: tokens in a grammar are not supported: write text",
        ),
        (
            "root ::= \"a\" & \"b\"",
            "line 1, column 14: '&' is none of a name, text in \"\", [], () or .",
        ),
    ] {
        let found = compile(grammar, &ParserLimits::default()).err();
        assert_eq!(found.as_deref(), Some(why), "{grammar}");
    }
}

#[test]
fn grammars_that_are_too_large() {
    let refused = |grammar: &str| compile(grammar, &ParserLimits::default()).err().unwrap();
    let nested = |n| format!("root ::= {}\"a\"{}", "(".repeat(n), ")".repeat(n));
    assert!(matcher(&nested(64)).is_ok());
    let deep = "line 1, column 74: there are more than 64 groups within each other";
    assert_eq!(refused(&nested(65)), deep);
    assert_eq!(refused(&nested(100_000)), deep);
    assert_eq!(refused(&format!("root ::= {}", "(".repeat(100_000))), deep);
    assert!(refused(&" ".repeat(LONGEST + 1)).contains("1048577 bytes"));
    // Each doubles the one before it.
    let double = |i| format!("r{i} ::= r{} r{} \"x\"\n", i + 1, i + 1);
    let doubled: String = (0..40).map(double).collect();
    let why = refused(&format!("root ::= r0\n{doubled}r40 ::= \"a\""));
    assert_eq!(why, "the rule \"r23\" is too large to be matched as a whole");
    let many = |n| (0..n).map(|i| format!("| \"{i}\" root ")).collect::<String>();
    assert!(refused(&format!("root ::= {}", many(6000))).contains("5000 regular expressions"));
    let class: String = (0..1001).map(|i| char::from_u32(0x4e00 + 2 * i).unwrap()).collect();
    assert!(refused(&format!("root ::= [{class}]")).contains("1001 ranges"));
    let symbols = |n| format!("root ::= \"a\" {} | \"b\"", "(root | root)".repeat(n));
    assert!(refused(&symbols(11_000)).contains("10000 symbols"));
}

/// Rules that each name the next one.
#[test]
fn long_chains() {
    for n in [1000, 5000] {
        for last in ["\"y\"", "\"y\" | \"(\" r0 \")\""] {
            let next = |i| format!("r{i} ::= \"x\" r{} | \"z\"\n", i + 1);
            let chain: String = (0..n).map(next).collect();
            let grammar = format!("root ::= r0\n{chain}r{n} ::= {last}");
            match matcher(&grammar) {
                Ok(matcher) => assert!(is_text(&matcher, "xxxz") && !is_text(&matcher, "xxx")),
                Err(why) => panic!("{why}"),
            }
        }
    }
}

/// What comes behind a lexeme could be a part of it.
#[test]
fn lexemes_that_could_go_on() {
    let last = "root ::= [a-z]+ b\nb ::= \"x\" | \"x\" b";
    check(last, &["ax", "xx", "axx", "abcxxx"], &["", "x", "a", "xa", "axa"]);
    let spaces = "root ::= a \" \"\na ::= \"(\" a \")\" | [a-z]+ [ ]*";
    check(spaces, &["a ", "a  "], &["a", " "]);
    check(spaces, &["(a) ", "((ab  )) "], &["(a)", "(a)  "]);
    // A keyword that could be a name, and the other way round.
    let words = r#"
        root ::= s+
        s ::= "if(" e ")" s | [a-z]+ "(" e ")" ";" | "do" " " e ";" | e ";"
        e ::= [a-z]+ | [0-9]+ | "(" e ")""#;
    let texts =
        ["if(a)b;", "if(a);", "iff(a);", "i(1);", "do x;", "do;", "dog(x);", "(do);", "d;do do;"];
    check(words, &texts, &["if(a)", "do x", "dox x;", "if a;", "1(a);", "do 1(a);"]);
    // The characters are others, but begin with the same byte.
    check(
        "root ::= a \"è\" | \"x\" root\na ::= [é]* | \"(\" a \")\"",
        &["è", "éè", "xéééè", "x(é)è"],
        &["é", "x"],
    );
    check("root ::= \"è\" | [éa]+ root", &["è", "éè", "éaéè"], &["é", "éé", "aè1"]);
    check(
        "root ::= [^a-y] | [^b\\n]+ root \"!\"",
        &["z", "é", "éz!", "a!😀!", "aaz!!"],
        &["az", "b", "a!b!"],
    );
    // One is the beginning of another, with others between them.
    let beginnings = "root ::= \"a\" root | \"ab\" root | \"abc\" | \"bd\" root | \"c\"";
    check(
        beginnings,
        &["abc", "aabc", "ababc", "abdc", "abc", "bdbdabdc"],
        &["ab", "abd", "bc", "abcc"],
    );
}

const ARITHMETIC: &str = r#"
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"#;

/// The example of llama.cpp.
#[test]
fn arithmetic() {
    let texts = [
        "a=1\n",
        "x +1 = y_2\n",
        "1=2\n\n \n",
        "(a +b) *3 -( c ) =\n( d )\n",
        "a=b\nc=d\n",
        "a\n=\nb \n\n",
    ];
    check(
        ARITHMETIC,
        &texts,
        &["", "a=1", "a=\n", "a b=c\n", "(a=1\n", "a=1\n2", "=1\n", "a+=1\n"],
    );
}

/// Repetitions of characters do not make a place more expensive than the one before.
#[test]
fn long_texts() {
    let words = "root ::= word (\" \" word)* \".\" | \"(\" root \")\"\nword ::= [a-z]+ \"s\"?";
    let text = format!("({}.)", ["cats", "s", "sssss"].join(" ").repeat(500));
    check(words, &[&text], &[&text[1..], &text[..text.len() - 1]]);
}
