//! What transformers makes of the same templates and variables.

use std::fs;
use std::path::Path;

use bitnet_inference::chat::{Conversation, Data};

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
