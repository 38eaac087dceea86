//! Lists and ranges of numbers on the command line, as llama-bench writes them.

use std::str::FromStr;

/// Numbers in a list at most: a larger range is a mistake.
const MOST: usize = 10_000;

/// Some numbers: `512`, `1,2,4`, `1-4`, `64-256+64`, `1-8*2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List(Vec<usize>);

impl List {
    /// The numbers of all lists, one after another.
    pub(crate) fn join(lists: &[List]) -> impl Iterator<Item = usize> {
        lists.iter().flat_map(|list| &list.0).copied()
    }
}

impl FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<List, String> {
        let mut numbers = Vec::new();
        for item in text.split(',') {
            range(item, &mut numbers).ok_or_else(|| {
                format!("`{item}` is no number or range: write 512, 1-4, 64-256+64 or 1-8*2")
            })?;
        }
        Ok(List(numbers))
    }
}

/// Appends `first-last`, stepping by one, by `+step` or by `*factor`, or one number.
fn range(text: &str, numbers: &mut Vec<usize>) -> Option<()> {
    let Some((first, rest)) = text.split_once('-') else {
        numbers.push(text.parse().ok()?);
        return Some(());
    };
    let end = rest.find(['+', '*']).unwrap_or(rest.len());
    let (last, step) = rest.split_at(end);
    let next: Box<dyn Fn(usize) -> Option<usize>> = match step.split_at_checked(1) {
        None => Box::new(|n| n.checked_add(1)),
        Some((operator, by)) => {
            let by: usize = by.parse().ok()?;
            match operator {
                "+" => Box::new(move |n| n.checked_add(by)),
                _ => Box::new(move |n| n.checked_mul(by)),
            }
        }
    };
    let (mut n, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    while n <= last {
        if numbers.len() == MOST {
            return None;
        }
        numbers.push(n);
        // A step that leads nowhere is a mistake.
        n = next(n).filter(|&next| next > n)?;
    }
    Some(())
}

/// Tokens of a prompt and of the generation after it: `512,128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair(pub(crate) usize, pub(crate) usize);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Pair, String> {
        let parts = text.split_once(',').and_then(|(prompt, generate)| {
            Some(Pair(prompt.parse().ok()?, generate.parse().ok()?))
        });
        parts.ok_or_else(|| "write two numbers, such as 512,128".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        for (text, want) in [
            ("512", &[512][..]),
            ("1,2,4", &[1, 2, 4]),
            ("1-4", &[1, 2, 3, 4]),
            ("64-256+64", &[64, 128, 192, 256]),
            ("1-10*2,7", &[1, 2, 4, 8, 7]),
            ("5-4", &[]),
        ] {
            assert_eq!(text.parse(), Ok(List(want.to_vec())), "{text}");
        }
        for text in ["", "x", "-1", "1-", "1-4+", "1-4+0", "1-4*1", "0-4*2", "1-20000", "1;2"] {
            assert!(text.parse::<List>().is_err(), "{text}");
        }
        assert_eq!("512,128".parse(), Ok(Pair(512, 128)));
        assert!("512".parse::<Pair>().is_err());
    }
}
