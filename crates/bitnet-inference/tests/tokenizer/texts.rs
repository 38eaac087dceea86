//! Texts that are hard to cut.

use proptest::prelude::*;
use proptest::string::string_regex;

/// The start of the demo model's held-out text.
pub(crate) const HELDOUT: &str = include_str!("../data/heldout.txt");

pub(crate) const HARD: &[&str] = &[
    "",
    " ",
    "Once upon a time, there was a king who had three sons.",
    "fn main() {\n    let x: Vec<u8> = vec![0x1F; 1_000];\n\tprintln!(\"{x:?}\");\r\n}\r\n",
    "#include <stdio.h>\nint main(void){return 0;}/*  end  */\n\n\n",
    "if (a&&b)||!c{d[i++]+=1e-5f;}//    x\n\t\t\treturn;\n",
    "https://example.org/a/b?c=d&e=%20#f_g user@example.org C:\\dir\\file.txt",
    "你好,世界!这是一个测试。 日本語のテキスト、カタカナとひらがな。한국어 문장입니다.",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 👍🏽 tone 🇩🇪🇯🇵 ☺️ 1️⃣ \u{e0067}",
    "e\u{301}\u{302}a\u{308} \u{301}x Å\u{30a} Z\u{351}\u{36b}\u{343}a\u{31b}l\u{323}go \u{20dd}",
    "مرحبا بالعالم، كيف الحال؟ ١٢٣٤٥٦ שלום עולם נִקּוּד",
    "नमस्ते दुनिया, क्षत्रिय ज्ञान १२३४ ไทยไม่มีเว้นวรรค ភាសាខ្មែរ",
    "   leading, trailing   \t \t",
    "a  b   c    d     e          f                                                     g",
    "a\n\nb\n\n\nc\n \n  \nd \n e\t\n\t\nf\n\n\n\n\n\n\n\n",
    "a\r\nb\rc\n\rd\r\r\n\n e\r\n\r\n\r\n  f \r \n g",
    "!\n?\r\n...\n\n;;\r\r\n x\n!",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 0x7fff 10^-9 ½ ² Ⅷ ৪৫৬৭ 一二三 𝟘𝟙𝟚𝟛𝟜",
    "I'm you're he's we'll they've I'd don't I'M YOU'RE HE'S WE'LL THEY'VE I'D DON'T 'Re'lL'vE",
    "'s''s'''s '' ' 'a 'S't'x'r'v'l're'sat 'tis ’s ’t it's'it rock'n'roll l'été",
    "it'ſ it'ſo 'ſ' ſ Maſſe 'ſſ \u{212a}elvin \u{212b}",
    "a\u{a0}b\u{a0}\u{a0}c \u{a0} d\u{a0}\n\u{3000}全角\u{3000}\u{3000}空白\u{2003}x\u{202f}y\u{1680}z",
    "\u{85}a\u{85}\u{85}b\u{2028}c\u{2029}\u{b}d\u{c}e\u{1c}f\u{1f}\u{180e}g",
    "\0\u{1}\u{2}a\u{7}\u{8}\u{1b}[31mred\u{1b}[0m\u{7f}\u{80}\u{9f}\u{ad}",
    "zero\u{200b}width\u{200c}non\u{200d}joiner\u{2060}\u{feff}bom \u{200b} \u{feff}",
    "\u{fffd}\u{fffe}\u{ffff}\u{10ffff}\u{e000}\u{378}",
    "<|begin_of_text|>User: hi<|eot_id|>Assistant:<|end_of_text|>",
    "<|eot_id|><|eot_id|> <|eot_id|>\n\n<|eot_id|>'s x<|eot_id|>'s",
    "<|eot_id|<|eot_id|><|eot_id <|<||>eot_id|> <|reserved_special_token_1|>",
    "word  <|start_header_id|>  word  <|end_header_id|>\n\n  word",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "thethethethethethetheandandandthethatthisthenthereingingingeded",
];

/// Words, spaces, quotes, digits, special tokens and their halves, and anything else.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => string_regex("[ \t\r\n'a-eſ0-9.,!\u{a0}\u{301}]{0,12}").unwrap(),
        4 => string_regex("( ?(the|king|said|Princess|ing|'s|'LL|12345|\\.\"|\r\n)){0,8}").unwrap(),
        2 => string_regex("(<\\||\\|>|eot_id|<\\|eot_id\\|>|<\\|end_of_text\\|>){0,4}").unwrap(),
        2 => string_regex("\\PC{0,12}").unwrap(),
        1 => any::<String>(),
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}
