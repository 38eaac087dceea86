//! Guesses of the next tokens, for speculation: what followed the last time the same tokens came
//! (prompt lookup decoding).
//!
//! A guess costs rows of a forward pass, never a result: each is drawn as without it, and what was
//! guessed wrong is thrown away.

/// Tokens that must be the same for a guess, at least and at most.
const SAME: [usize; 2] = [2, 4];

/// Guesses for one sequence. Their number goes up while they are right, and down while not.
#[derive(Clone, Debug)]
pub(super) struct Drafter {
    /// Tokens to guess at most.
    most: usize,
    /// Tokens to guess next.
    width: usize,
}

impl Drafter {
    pub(super) fn new(most: usize) -> Drafter {
        Drafter { most, width: most.min(4) }
    }

    /// Guesses up to `room` tokens behind `tokens`. What repeats is guessed to go on so.
    pub(super) fn draft(&self, tokens: &[u32], room: usize) -> Vec<u32> {
        let n = self.width.min(room);
        let [least, most] = SAME;
        for same in (least..=most.min(tokens.len() / 2)).rev() {
            let end = &tokens[tokens.len() - same..];
            // The latest place where they came before.
            let before = &tokens[..tokens.len() - 1];
            if let Some(at) = before.windows(same).rposition(|window| window == end) {
                return tokens[at + same..].iter().copied().cycle().take(n).collect();
            }
        }
        Vec::new()
    }

    /// Notes how many of `drafted` guesses were right.
    pub(super) fn learn(&mut self, drafted: usize, right: usize) {
        if right == drafted {
            self.width = (2 * self.width).min(self.most);
        } else if 2 * right < drafted {
            self.width = (self.width / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_and_latest_match_is_guessed() {
        let drafter = Drafter { most: 8, width: 3 };
        // 1 2 came twice, last before 6.
        assert_eq!(drafter.draft(&[1, 2, 5, 1, 2, 6, 7, 8, 9, 1, 2], 8), [6, 7, 8]);
        assert_eq!(drafter.draft(&[1, 2, 5, 1, 2, 6, 7, 8, 9, 1, 2], 2), [6, 7]);
        // 0 1 2 is longer.
        assert_eq!(drafter.draft(&[0, 1, 2, 5, 4, 1, 2, 6, 0, 1, 2], 1), [5]);
        assert_eq!(drafter.draft(&[3, 3, 3, 3], 8), [3, 3, 3]);
        assert_eq!(drafter.draft(&[8, 1, 2, 1, 2], 8), [1, 2, 1]);
        for tokens in [&[1, 2, 3, 4, 5][..], &[1], &[]] {
            assert!(drafter.draft(tokens, 8).is_empty());
        }
    }

    #[test]
    fn guesses_get_more_and_fewer() {
        let mut drafter = Drafter::new(16);
        assert_eq!(drafter.width, 4);
        for n in [4, 8, 16, 16] {
            drafter.learn(n, n);
        }
        assert_eq!(drafter.width, 16);
        drafter.learn(16, 8);
        assert_eq!(drafter.width, 16);
        for _ in 0..6 {
            drafter.learn(2, 0);
        }
        assert_eq!(drafter.width, 1);
    }
}
