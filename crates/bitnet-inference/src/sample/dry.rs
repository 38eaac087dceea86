//! Which tokens would go on with a repetition, and how long it is.

use std::collections::BTreeMap;

use super::settings::Dry;
use crate::tokenizer::Tokenizer;

/// So many of the last tokens are looked at for breakers first: most often there is one.
const NEAR: usize = 32;

impl Dry {
    /// What is taken from the logits of tokens after `history`.
    pub(super) fn penalties(
        &self,
        history: &[u32],
        tokenizer: Option<&Tokenizer>,
    ) -> BTreeMap<u32, f32> {
        let recent = &history[history.len().saturating_sub(self.last_n.unwrap_or(usize::MAX))..];
        let most = tokenizer.map_or(recent.len(), |tokenizer| self.unbroken(recent, tokenizer));
        let mut penalties = BTreeMap::new();
        if most < self.allowed_length {
            return penalties;
        }
        for (place, same) in repeated(recent).into_iter().enumerate() {
            let length = same.min(most);
            if length == 0 || length < self.allowed_length {
                continue;
            }
            let more = (length - self.allowed_length) as f32;
            // Finite, however long: a token that nothing is left of is as good as none.
            let penalty = (self.multiplier * libm::powf(self.base, more)).min(1e30);
            let entry = penalties.entry(recent[place]).or_insert(0.0_f32);
            *entry = entry.max(penalty);
        }
        penalties
    }

    /// How many of the last tokens come after the last breaker.
    fn unbroken(&self, recent: &[u32], tokenizer: &Tokenizer) -> usize {
        let longest = self.breakers.iter().map(String::len).max().unwrap_or(0);
        let mut some = NEAR;
        loop {
            let last = &recent[recent.len().saturating_sub(some)..];
            let all = last.len() == recent.len();
            match self.last_breaker(last, tokenizer) {
                // None that begins before these tokens ends behind it.
                Some((end, unbroken)) if all || end >= longest => return unbroken,
                None if all => return recent.len(),
                _ => some *= 4,
            }
        }
    }

    /// Where in the bytes of these tokens the last breaker ends, and how many tokens come after the one in
    /// which it does. It may begin in another.
    fn last_breaker(&self, tokens: &[u32], tokenizer: &Tokenizer) -> Option<(usize, usize)> {
        let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(tokens.len()));
        for &id in tokens {
            text.extend_from_slice(tokenizer.bytes(id).unwrap_or_default());
            ends.push(text.len());
        }
        let breakers = self.breakers.iter().filter(|breaker| !breaker.is_empty());
        let end = breakers.filter_map(|breaker| {
            let at = text.windows(breaker.len()).rposition(|it| it == breaker.as_bytes())?;
            Some(at + breaker.len())
        });
        let end = end.max()?;
        Some((end, tokens.len() - ends.partition_point(|&at| at < end) - 1))
    }
}

/// For each place, how many tokens before it are the same as the last ones: what the token there went
/// on with.
fn repeated(tokens: &[u32]) -> Vec<usize> {
    let n = tokens.len();
    let back = |i: usize| tokens[n - 1 - i];
    // Z-function of the tokens from the last to the first: how many from `i` on are those from 0 on.
    let mut same = vec![0; n];
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut z = if i < right { same[i - left].min(right - i) } else { 0 };
        while i + z < n && back(z) == back(i + z) {
            z += 1;
        }
        if i + z > right {
            (left, right) = (i, i + z);
        }
        same[i] = z;
    }
    // The token at place `p` came after those that end at `p - 1`.
    (0..n).map(|place| if place == 0 { 0 } else { same[n - place] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::samples;

    #[test]
    fn what_is_repeated_is_counted() {
        // 1 2 3 | 1 2: the token at place 2 came after two that are the last.
        assert_eq!(repeated(&[1, 2, 3, 1, 2]), [0, 0, 2, 0, 0]);
        assert_eq!(repeated(&[7, 7, 7]), [0, 1, 2]);
        assert!(repeated(&[]).is_empty());
        // Against the plain definition.
        let tokens: Vec<u32> = (0..200_u32).map(|i| i * i % 7 % 3).collect();
        for (place, found) in repeated(&tokens).into_iter().enumerate() {
            let pairs = tokens[..place].iter().rev().zip(tokens.iter().rev());
            assert_eq!(found, pairs.take_while(|(a, b)| a == b).count(), "{place}");
        }
    }

    #[test]
    fn longer_repetitions_cost_more() {
        let dry = Dry { multiplier: 0.5, base: 2.0, ..Dry::default() };
        let after = |history: &[u32]| dry.penalties(history, None).into_iter().collect::<Vec<_>>();
        assert_eq!(after(&[1, 2, 3, 9, 1, 2]), [(3, 0.5)]);
        assert_eq!(after(&[0, 1, 2, 3, 9, 0, 1, 2]), [(3, 1.0)]);
        assert_eq!(after(&[2, 3, 9, 2]), []);
        let near = Dry { last_n: Some(4), ..dry.clone() };
        assert!(near.penalties(&[1, 2, 3, 9, 1, 2], None).is_empty());
    }

    #[test]
    fn nothing_is_repeated_across_a_breaker() {
        let vocabulary = samples::byte_level().swap_remove(0);
        let tokenizer = Tokenizer::new(vocabulary).unwrap();
        let encode = |text: &str| tokenizer.encode(text, crate::tokenizer::Special::TEXT);
        let dry = Dry { multiplier: 1.0, ..Dry::default() };
        let plain = encode("abcabcab");
        let broken = encode("abcabc\nab");
        assert!(!dry.penalties(&plain, Some(&tokenizer)).is_empty());
        assert_eq!(dry.unbroken(&broken, &tokenizer), encode("ab").len());
        // A breaker of several tokens.
        let long = Dry { breakers: vec!["c\na".to_owned()], ..dry.clone() };
        assert_eq!(long.unbroken(&broken, &tokenizer), 1);
        // Wherever it is, and where a longer one begins farther back.
        let both = Dry { breakers: vec!["\n".to_owned(), "c\nabab".to_owned()], ..dry };
        for n in 0..2 * NEAR {
            let tail = "ab".repeat(n);
            let text = encode(&format!("{}c\n{tail}", "ab".repeat(5)));
            let after = encode(&tail).len();
            let breaks = if n < 2 { after } else { encode(&"ab".repeat(n - 2)).len() };
            assert_eq!(both.unbroken(&text, &tokenizer), breaks, "{n}");
        }
        let none = encode(&"ab".repeat(200));
        assert_eq!(both.unbroken(&none, &tokenizer), none.len());
    }
}
