//! What transformers makes of the same templates and variables.

use std::fs;
use std::path::Path;

use bitnet_inference::chat::{Conversation, Data, Moment};

use crate::{TOKENIZER, now, template};

#[test]
fn templates_print_what_they_do_in_transformers() {
    let data: Data = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let Some(Data::List(vectors)) = data.get("vectors") else { panic!() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat");
    let mut wrong = Vec::new();
    for vector in vectors {
        let text = |key: &str| match vector.get(key) {
            Some(Data::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        let name = text("name").unwrap();
        let source = match text("file") {
            Some(file) => fs::read_to_string(folder.join(file)).unwrap(),
            None => text("template").unwrap().to_owned(),
        };
        let variables = data.get("variables").unwrap().get(text("variables").unwrap()).unwrap();
        let conversation = Conversation::from_data(variables.clone(), now()).unwrap();
        let found = template(&source).render(&conversation, &TOKENIZER);
        let found = found.map(|prompt| prompt.text());
        let same = match (&found, text("result")) {
            (Ok(found), Some(expected)) => found == expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!(
                "{name}\n  found    {found:?}\n  expected {:?}",
                vector.get("result")
            ));
        }
    }
    assert!(vectors.len() > 100, "{}", vectors.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[test]
fn time_is_told_as_calendars_do() {
    for (seconds, text) in [
        (0, "1970-01-01 00:00:00 Thu 1 Jan"),
        (-1, "1969-12-31 23:59:59 Wed 31 Dec"),
        (951_782_400, "2000-02-29 00:00:00 Tue 29 Feb"),
        (1_709_251_199, "2024-02-29 23:59:59 Thu 29 Feb"),
        (4_107_542_400, "2100-03-01 00:00:00 Mon 1 Mar"),
        (253_402_300_799, "9999-12-31 23:59:59 Fri 31 Dec"),
    ] {
        let conversation = Conversation::new(Vec::new(), Moment::new(seconds));
        let text_of = template("{{ strftime_now('%F %T %a %-d %b') }}");
        assert_eq!(text_of.render(&conversation, &TOKENIZER).unwrap().text(), text);
    }
}
