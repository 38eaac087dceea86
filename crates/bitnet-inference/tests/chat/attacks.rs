//! Templates that mean harm: each is stopped, with the right error, in bounded time and memory.

use bitnet_inference::chat::{ChatError, Conversation, Data};

use crate::{TOKENIZER, now, render, template};

/// Stopped since it does not end.
fn is_endless(text: &str) {
    let found = render(text, "hello");
    assert!(matches!(found, Err(ChatError::Endless { .. })), "{text}\n{found:.300?}");
}

/// Stopped since it asks for something that is not there, which is named.
fn is_refused(text: &str, words: &str) {
    match render(text, "hello") {
        Err(error @ ChatError::Template { .. }) => {
            assert!(error.to_string().contains(words), "{text}\n{error}");
        }
        found => panic!("{text}\n{found:.300?}"),
    }
}

/// Does `step` a thousand times, with `x` that starts as `start`.
fn again(start: &str, step: &str) -> String {
    format!(
        "{{% set ns = namespace(x={start}) %}}{{% for i in range(1000) %}}{{% set ns.x = {step} %}}{{% endfor %}}\
         {{{{ ns.x | length }}}}"
    )
}

#[test]
fn loops_end() {
    is_endless("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}");
    is_endless("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}");
    let all = "{% for c in range(99999) | list * 99 %}{% endfor %}";
    is_endless(all);
    is_endless("{% for c in 'x' * 9999999 %}{% for c in 'x' * 9999999 %}{% endfor %}{% endfor %}");
    is_endless(
        "{% for i in range(99999) %}{{ messages == messages[:] and [messages] * 9 == [messages] * 9 }}{% endfor %}",
    );
}

#[test]
fn strings_do_not_double_for_ever() {
    for step in [
        "ns.x ~ ns.x",
        "ns.x + ns.x",
        "ns.x * 2",
        "ns.x | replace('a', 'aa')",
        "ns.x.replace('a', 'aa')",
        "ns.x.replace('', 'a')",
        "[ns.x, ns.x] | join",
        "ns.x.join([ns.x, ns.x, ns.x])",
        "ns.x | indent(ns.x | length, true)",
        "[ns.x, ns.x] | string",
        "[ns.x, ns.x] | tojson",
        "'' ~ [ns.x, ns.x]",
        "ns.x | list | join(ns.x)",
        "(ns.x ~ 'b') | upper ~ ns.x | lower",
        "(ns.x | escape) + (ns.x | safe)",
        "ns.x[:] ~ ns.x[::-1]",
        "[ns.x, ns.x] | tojson(indent=ns.x | length)",
        "[ns.x] * 2 | length | string",
        "'%s%s' | replace('%s', ns.x)",
        "{ns.x: ns.x} | string",
        "dict(a=ns.x, b=ns.x) | tojson",
        "[ns.x, ns.x] | map('upper') | join",
        "[ns.x ~ ns.x, ns.x] | sum(start='')",
    ] {
        let text = again("'aa'", step);
        let found = render(&text, "hello");
        let is_short = |length: &str| length.parse::<usize>().is_ok_and(|n| n < 100);
        match &found {
            Err(ChatError::Endless { .. } | ChatError::Template { .. }) => {}
            Ok(prompt) if is_short(&prompt.text()) => {}
            _ => panic!("{step}: {found:.300?}"),
        }
        if step != "[ns.x] * 2 | length | string" && !step.contains("sum") {
            assert!(matches!(found, Err(ChatError::Endless { .. })), "{step}: {found:?}");
        }
    }
    let doubled = "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set t %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = t %}{% endfor %}";
    is_endless(doubled);
    is_endless(
        "{% set ns = namespace(x='aa') %}{% macro m() %}{{ ns.x }}{{ ns.x }}{% endmacro %}{% for i in range(99) %}{% set ns.x = m() %}{% endfor %}",
    );
    is_endless(
        "{% set ns = namespace(x='aa') %}{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}{% for i in range(99) %}{% set t %}{% call m() %}{{ ns.x }}{% endcall %}{% endset %}{% set ns.x = t %}{% endfor %}",
    );
    is_endless(
        "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x %}{% filter upper %}{{ ns.x }}{{ ns.x }}{% endfilter %}{% endset %}{% endfor %}",
    );
}

#[test]
fn numbers_do_not_make_much_of_little() {
    for text in [
        "{{ 'x' * 10 ** 12 }}",
        "{{ 'x' * 99999999 }}",
        "{{ [1] * 10 ** 18 }}",
        "{{ [1] * 10 ** 9 == [1] * 10 ** 9 }}",
        "{{ 2 in [1] * 10 ** 18 }}",
        "{{ ([1] * 10 ** 18) | length }}",
        "{{ ([1] * 10 ** 18) | tojson }}",
        "{{ [1, 2] | tojson(indent=10 ** 18) }}",
        "{{ 'a\nb' | indent(10 ** 18) }}",
        "{{ 'a\nb' | indent(10 ** 10) }}",
    ] {
        let found = render(text, "hello");
        assert!(
            matches!(found, Err(ChatError::Endless { .. } | ChatError::Template { .. })),
            "{text}: {found:.300?}"
        );
    }
    is_refused("{{ 10 ** 10 ** 10 }}", "unable to calculate");
    is_refused("{{ range(10 ** 18) }}", "100000");
    is_refused("{{ range(9223372036854775807, -9223372036854775807, -1) }}", "100000");
    is_refused("{{ range(1, 2, 0) }}", "steps of 0");
    is_refused("{{ '%0999999999d' | format(1) }}", "format");
    is_refused("{{ '{:>999999999}'.format(1) }}", "format");
    is_refused("{{ 'x'.center(999999999) }}", "center");
    is_refused("{{ 'x' | center(999999999) }}", "center");
    is_refused("{{ [1] | batch(10 ** 18) }}", "batch");
    is_refused("{{ [1] | slice(10 ** 18) | list }}", "slice");
    assert!(render("{{ 1 | round(10 ** 9) }}", "").is_ok_and(|prompt| prompt.text().len() < 20));
}

/// Lists that share their parts are small, and what stands in them is not.
#[test]
fn lists_do_not_double_for_ever() {
    for (start, step, end) in [
        ("[1]", "ns.x + ns.x", "ns.x"),
        ("[1]", "ns.x * 2", "ns.x"),
        ("[1]", "[ns.x, ns.x]", "ns.x"),
        ("[1]", "[ns.x, ns.x]", "ns.x | tojson"),
        ("[1]", "[ns.x, ns.x]", "ns.x | string | length"),
        ("[1]", "[ns.x, ns.x]", "ns.x ~ ''"),
        ("[1]", "[ns.x, ns.x]", "[ns.x] | join"),
        ("[1]", "[ns.x, ns.x]", "ns.x == ns.y"),
        ("[1]", "[ns.x, ns.x]", "ns.x <= ns.y"),
        ("[1]", "[ns.x, ns.x]", "[ns.x, ns.y] | sort"),
        ("[1]", "[ns.x, ns.x]", "[ns.x, ns.y] | unique | list"),
        ("[1]", "[ns.x, ns.x]", "{1: ns.x} == {1: ns.y}"),
        ("[1]", "[ns.x, ns.x]", "ns.x in [1, ns.y]"),
        ("[1]", "[ns.x, ns.x]", "[ns.x].index(ns.y)"),
        ("[1]", "[ns.x, ns.x]", "[ns.x, ns.y] | max"),
        ("[1]", "[ns.x, ns.x]", "ns.x is eq ns.y"),
        ("[1]", "{'a': ns.x, 'b': ns.x}", "ns.x | tojson"),
        ("[1]", "dict(a=ns.x, b=ns.x)", "ns.x"),
        ("[1]", "dict({'a': ns.x}, b=ns.x)", "ns.x"),
        ("[1]", "[ns.x, ns.x] | reverse | list", "ns.x"),
        ("[1]", "[ns.x, ns.x] | list", "ns.x"),
        ("[1]", "[ns.x, ns.x] | map('list') | list", "ns.x"),
        ("[1]", "{'a': ns.x, 'b': ns.x}.values()", "ns.x"),
        ("[1]", "{'a': ns.x, 'b': ns.x} | items | list", "ns.x"),
        ("[1]", "{'a': ns.x, 'b': ns.x} | dictsort", "ns.x"),
        ("['a']", "ns.x + ns.x", "ns.x | join"),
        ("['aaaaaaaa' * 99999]", "ns.x + ns.x", "ns.x | join"),
    ] {
        // Deep enough to be endless, and not too deep.
        let rounds = 33;
        let other = step.replace("ns.x", "ns.y");
        is_endless(&format!(
            "{{% set ns = namespace(x={start}, y={start}) %}}{{% for i in range({rounds}) %}}{{% set ns.x = {step} %}}\
             {{% set ns.y = {other} %}}{{% endfor %}}{{{{ {end} }}}}"
        ));
    }
}

#[test]
fn nothing_lies_too_deep() {
    for step in [
        "[ns.x]",
        "(ns.x,)",
        "{'a': ns.x}",
        "dict(a=ns.x)",
        "[ns.x][:]",
        "[ns.x] + []",
        "[ns.x] * 1",
        "[ns.x] | list",
        "{1: ns.x}.items()",
        "{'a': ns.x} | items | list",
        "[ns.x] | reverse",
    ] {
        is_refused(&again("[]", step), "in each other");
    }
    // These would be lazy, and each a layer more around the one before.
    for step in [
        "ns.x[:]",
        "ns.x + []",
        "[] + ns.x",
        "ns.x * 1",
        "ns.x | reverse",
        "ns.x | list",
        "ns.x[::-1]",
    ] {
        let long = again("[1, 2]", step).replace("range(1000)", "range(20000)");
        assert_eq!(render(&long, "hello").unwrap().text(), "2", "{step}");
    }
    let mut deep = Data::List(Vec::new());
    for _ in 0..200 {
        deep = Data::List(vec![deep]);
    }
    let found =
        template("{{ messages }}").render(&Conversation::new(vec![deep], now()), &TOKENIZER);
    assert!(matches!(found, Err(ChatError::Template { .. })), "{found:?}");
}

/// What changes could hold itself.
#[test]
fn nothing_holds_itself() {
    for value in [
        "ns",
        "[ns]",
        "{'a': ns}",
        "namespace(a=ns)",
        "dict(a=ns)",
        "ns | list | list + [ns]",
        "m",
        "[m]",
        "loop",
        "[loop]",
    ] {
        let text = format!(
            "{{% macro m() %}}{{% endmacro %}}{{% set ns = namespace() %}}{{% for i in [1] %}}{{% set ns.x = {value} %}}{{% endfor %}}"
        );
        is_refused(&text, "not supported");
    }
    is_refused("{% set ns = namespace() %}{% set ns.a, b = ns, 1 %}", "namespace");
    is_refused("{% set ns = namespace(a=1) %}{{ ns }}", "print");
    is_refused("{% set ns = namespace(a=1) %}{{ ns | tojson }}", "JSON");
    is_refused("{% for i in [1] %}{{ loop }}{% endfor %}", "print");
    is_refused("{% for i in [1] %}{{ loop.changed(loop) }}{% endfor %}", "changed");
    is_refused("{% for i in [1] %}{{ loop.cycle() }}{% endfor %}", "cycle");
    is_refused("{% for i in [1] %}{{ loop.cycle(*[]) }}{% endfor %}", "cycle");
}

#[test]
fn nothing_calls_itself_for_ever() {
    is_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion");
    is_refused(
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "",
    );
    is_refused(
        "{% macro m() %}{{ caller() }}{% call m() %}{% endcall %}{% endmacro %}{% call m() %}x{% endcall %}",
        "recursion",
    );
    is_refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursion");
    is_refused(
        "{% set x = [1] %}{% for y in x recursive %}{{ loop(x) }}{{ loop(x) }}{% endfor %}",
        "recursion",
    );
    is_endless(
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(20) }}",
    );
}

/// Parsers and what walks over what they make call themselves.
#[test]
fn templates_that_are_too_large_or_too_deep_are_refused() {
    let many = |text: &str, n: usize| text.repeat(n);
    is_refused(&many("x", 1 << 19), "bytes");
    for (open, close) in
        [("(", ")"), ("[", "]"), ("{1:", "}"), ("-", ""), ("not ", ""), ("x(", ")"), ("x[", "]")]
    {
        for n in [140, 990, 100_000] {
            let text = format!("{{{{ {}1{} }}}}", many(open, n), many(close, n));
            let found = render(&text[..text.len().min(250_000)], "");
            assert!(found.is_err() || n < 1000, "{open} {n}");
        }
    }
    for link in [
        "+1",
        "-1",
        "~1",
        "*1",
        "**1",
        " and 1",
        " or 1",
        ".a",
        "[0]",
        "|list",
        "()",
        "<1",
        " if 1 else 1",
        " is true",
        " in 1",
    ] {
        for n in [300, 490, 60_000] {
            let text = format!("{{{{ x{} }}}}", many(link, n));
            let found = render(&text[..text.len().min(250_000)], "");
            assert!(found.is_err() || n < 500, "{link} {n}");
        }
    }
    for block in [
        "{% if 1 %}",
        "{% for x in [1] %}",
        "{% if 1 %}{% elif 1 %}",
        "{% macro x() %}",
        "{% set x %}",
        "{% call x() %}",
        "{% with %}",
        "{% filter upper %}",
    ] {
        for n in [140, 3000] {
            assert!(render(&many(block, n), "").is_err(), "{block}");
        }
    }
    is_refused(&format!("{{% if 0 %}}{}{{% endif %}}", many("{% elif 0 %}", 20_000)), "elif");
    let elifs = format!("{{% if 0 %}}{}{{% endif %}}", many("{% elif 0 %}", 99));
    assert_eq!(render(&elifs, "").unwrap().text(), "");
    let lines = many("\n", 200_000) + "{{ 1 + }}";
    assert!(matches!(render(&lines, ""), Err(ChatError::Template { .. })));
}

/// Long strings that are looked at again and again.
#[test]
fn looking_is_paid_for() {
    let long = "{% set a = 'x' * 4000000 %}{% set b = a ~ '' %}{% for i in range(99999) %}";
    for look in [
        "a == b",
        "a != b",
        "a < b",
        "0 < 1 < a",
        "a[-1]",
        "a[i]",
        "'y' in a",
        "a is eq(b)",
        "a is in(b)",
        "a.find('y')",
        "a.strip('y')",
        "b | trim(b)",
        "a.count('xx')",
        "a.startswith(b)",
        "a.isdigit()",
        "a | length",
        "a[1:2]",
        "{'a': 1}[a]",
        "{'a': 1}.get(a)",
        "a is startingwith(b)",
        "a.split('y')",
        "a | int",
        "[a, b] | sort | length",
        "a in [b]",
        "a | first",
        "a | last",
        "a == b == a",
    ] {
        is_endless(&format!("{long}{{% if {look} %}}{{% endif %}}{{% endfor %}}"));
    }
}

#[test]
fn no_other_file_is_read() {
    for text in [
        "{% include '/etc/passwd' %}",
        "{% import 'x' as x %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block x %}{% endblock %}",
    ] {
        is_refused(text, "unknown statement");
    }
    is_refused("{% autoescape true %}{% endautoescape %}", "autoescape");
    is_refused("{{ debug() }}", "debug is unknown");
    is_refused("{{ lipsum() }}", "lipsum is unknown");
    is_refused("{{ ''.__class__.__mro__ }}", "");
    is_refused("{{ messages.append(1) }}", "append");
    is_refused("{{ messages | pprint }}", "pprint");
}

#[test]
fn names_of_ours_cannot_be_spelled() {
    for text in ["{{ list([1]) }}", "{{ keep(1) }}", "{{  list() }}"] {
        is_refused(text, "is unknown");
    }
}
