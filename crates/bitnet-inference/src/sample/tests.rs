//! What samplers draw, against what they say.

use super::*;

fn sampler(settings: Sampling) -> Sampler<'static> {
    Sampler::with(settings, &KernelManager::new(), None).unwrap()
}

/// Which tokens of `logits` are ever drawn.
fn drawn(settings: Sampling, logits: &[f32]) -> Vec<u32> {
    let mut sampler = sampler(settings);
    let mut ids: Vec<_> =
        (0..2000).map(|_| sampler.sample(Logits::All(logits), &[]).unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Nothing but a draw.
fn off() -> Sampling {
    Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7, ..Sampling::default() }
}

#[test]
fn zero_temperature_takes_the_first_of_the_likeliest() {
    let greedy = Sampling { temperature: 0.0, ..off() };
    assert_eq!(drawn(greedy, &[1.0, 5.0, 5.0, 2.0]), [1]);
}

/// What a device can draw by itself, and what it cannot.
#[test]
fn draws_are_told_where_the_greatest_logits_are_enough() {
    let told = |settings: Sampling| match sampler(settings).wanted(&[1, 2], 0) {
        Wanted::Best(best) => best.draw,
        Wanted::All => None,
    };
    let usual = Sampling { seed: 9, ..Sampling::default() };
    let mut random = Xoshiro256PlusPlus::seed_from_u64(9);
    let cuts = [Cut::TopK(40), Cut::TopP(0.95), Cut::MinP(0.05), Cut::Temperature(0.8)];
    assert_eq!(told(usual.clone()), Draw::new(uniform(&mut random), cuts));
    assert_eq!(told(Sampling::greedy()), Some(Draw::greedy()));
    assert_eq!(Draw::new(0.5, [cuts, cuts].concat()), None);
    for settings in [
        Sampling { repeat_penalty: 1.1, ..usual.clone() },
        Sampling { repeat_penalty: 1.1, ..Sampling::greedy() },
        Sampling { typical_p: 0.5, ..usual.clone() },
        Sampling { typical_p: 0.5, ..Sampling::greedy() },
        Sampling { xtc_probability: 0.5, ..usual.clone() },
        Sampling { dynatemp_range: 0.5, ..usual.clone() },
        Sampling { logit_bias: [(3, 1.0)].into(), ..usual.clone() },
        Sampling { top_k: 0, ..usual },
    ] {
        assert_eq!(told(settings.clone()), None, "{settings:?}");
    }
}

#[test]
fn filters_leave_what_they_say() {
    // Probabilities 0.6439, 0.2369, 0.0871, 0.0321.
    let logits = [3.0, 2.0, 1.0, 0.0];
    assert_eq!(drawn(off(), &logits), [0, 1, 2, 3]);
    assert_eq!(drawn(Sampling { top_k: 2, ..off() }, &logits), [0, 1]);
    assert_eq!(drawn(Sampling { top_p: 0.64, ..off() }, &logits), [0]);
    assert_eq!(drawn(Sampling { top_p: 0.65, ..off() }, &logits), [0, 1]);
    assert_eq!(drawn(Sampling { min_p: 0.13, ..off() }, &logits), [0, 1, 2]);
    assert_eq!(drawn(Sampling { min_p: 1.0, ..off() }, &logits), [0]);
}

#[test]
fn filters_come_in_order_and_temperature_last() {
    // Probabilities 0.5, 0.3, 0.15, 0.05. Top-p leaves three, of which min-p takes none; the
    // other way round, the three would be 0.526, 0.316, 0.158, and top-p would leave two.
    let logits = [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln);
    let both = Sampling { top_p: 0.83, min_p: 0.25, ..off() };
    assert_eq!(drawn(both, &logits), [0, 1, 2]);
    // Neither knows the temperature.
    for hot in [0.5, 4.0] {
        let logits = [3.0, 2.0, 1.0, 0.0];
        let min_p = Sampling { min_p: 0.3, temperature: hot, ..off() };
        assert_eq!(drawn(min_p, &logits), [0, 1], "{hot}");
        let top_p = Sampling { top_p: 0.7, temperature: hot, ..off() };
        assert_eq!(drawn(top_p, &logits), [0, 1], "{hot}");
    }
}

#[test]
fn draws_follow_the_probabilities() {
    let mut sampler = sampler(off());
    let logits = [0.0, 3.0_f32.ln()];
    let ones =
        (0..10_000).filter(|_| sampler.sample(Logits::All(&logits), &[]).unwrap() == 1).count();
    assert!((7300..7700).contains(&ones), "{ones} of 10000, expected about 7500");
}

#[test]
fn a_tiny_temperature_is_greedy_and_a_huge_one_is_fair() {
    let logits = [1000.0, -1000.0, 999.0];
    assert_eq!(drawn(Sampling { temperature: 1e-30, ..off() }, &logits), [0]);
    assert_eq!(drawn(Sampling { temperature: 1e30, ..off() }, &logits), [0, 1, 2]);
}

#[test]
fn the_penalty_looks_at_recent_tokens_only() {
    let settings = Sampling { temperature: 0.0, repeat_penalty: 2.0, repeat_last_n: 2, ..off() };
    let mut sampler = sampler(settings);
    assert_eq!(sampler.sample(Logits::All(&[3.0, 2.0, -1.0]), &[0, 2]).unwrap(), 1);
    assert_eq!(sampler.sample(Logits::All(&[3.0, 2.0, -1.0]), &[0, 1, 2]).unwrap(), 0);
    assert_eq!(sampler.sample(Logits::All(&[-1.0, -1.5, -9.0]), &[0, 0]).unwrap(), 1);
    // However often a token was said.
    assert_eq!(sampler.sample(Logits::All(&[4.0, 1.5]), &[0, 0]).unwrap(), 0);
}

#[test]
fn a_seed_gives_the_same_tokens_everywhere() {
    let logits: Vec<f32> = (0..100).map(|i| (i * 37 % 100) as f32 / 20.0).collect();
    let mut sampler = sampler(Sampling { seed: 42, ..Sampling::default() });
    let ids: Vec<_> = (0..8).map(|_| sampler.sample(Logits::All(&logits), &[]).unwrap()).collect();
    assert_eq!(ids, [67, 62, 18, 32, 40, 24, 54, 51]);
}

#[test]
fn bad_logits_and_settings_are_refused() {
    assert!(matches!(
        sampler(off()).sample(Logits::All(&[1.0, f32::NAN]), &[]),
        Err(Error::NotFinite)
    ));
    for settings in [
        Sampling { top_p: 1.5, ..off() },
        Sampling { min_p: -0.1, ..off() },
        Sampling { temperature: f32::NAN, ..off() },
        Sampling { repeat_penalty: 0.0, ..off() },
    ] {
        assert!(matches!(settings.check(), Err(Error::Sampling { .. })));
    }
}

#[test]
fn typical_tokens_are_those_whose_information_is_near_the_entropy() {
    // Probabilities 0.5, 0.25, 0.125, 0.125, entropy 1.75 bits: 1 bit, 2 bits, 3 bits, 3 bits.
    let logits = [0.5_f32, 0.25, 0.125, 0.125].map(f32::ln);
    assert_eq!(drawn(Sampling { typical_p: 0.2, ..off() }, &logits), [1]);
    assert_eq!(drawn(Sampling { typical_p: 0.5, ..off() }, &logits), [0, 1]);
    assert_eq!(drawn(Sampling { typical_p: 0.8, ..off() }, &logits), [0, 1, 2]);
    // The likeliest may be left out, even if always the likeliest is taken.
    assert_eq!(drawn(Sampling { typical_p: 0.2, temperature: 0.0, ..off() }, &logits), [1]);
}

#[test]
fn deviations_from_the_greatest_are_counted() {
    // Mean 1, standard deviation sqrt(10) = 3.16.
    let logits = [6.0, 3.0, 0.0, -2.0, -2.0];
    assert_eq!(drawn(Sampling { top_n_sigma: 0.9, ..off() }, &logits), [0]);
    assert_eq!(drawn(Sampling { top_n_sigma: 1.0, ..off() }, &logits), [0, 1]);
    assert_eq!(drawn(Sampling { top_n_sigma: -1.0, temperature: 4.0, ..off() }, &logits).len(), 5);
}

#[test]
fn top_choices_are_excluded_as_often_as_asked() {
    let logits = [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln);
    let always = Sampling { xtc_probability: 1.0, xtc_threshold: 0.1, ..off() };
    assert_eq!(drawn(always.clone(), &logits), [2, 3]);
    assert_eq!(drawn(Sampling { temperature: 0.0, ..always.clone() }, &logits), [2]);
    let sometimes = Sampling { xtc_probability: 0.5, ..always.clone() };
    assert_eq!(drawn(sometimes, &logits), [0, 1, 2, 3]);
    // One token above the threshold is no choice; above one half there is never another.
    assert_eq!(drawn(Sampling { xtc_threshold: 0.4, ..always.clone() }, &logits), [0, 1, 2, 3]);
    assert_eq!(drawn(Sampling { xtc_threshold: 0.6, ..always }, &logits), [0, 1, 2, 3]);
}

#[test]
fn the_temperature_follows_the_entropy() {
    // Sure, it is cold; not sure, it is hot.
    let dynamic = Sampling { temperature: 1.0, dynatemp_range: 1.0, ..off() };
    assert_eq!(drawn(dynamic.clone(), &[20.0, 0.0, 0.0]), [0]);
    let (even, mut sampler) = ([0.0_f32, 0.1, 0.2], sampler(dynamic));
    let zeros =
        (0..10_000).filter(|_| sampler.sample(Logits::All(&even), &[]).unwrap() == 0).count();
    // At temperature 2: 1 / (1 + e^0.05 + e^0.1) = 0.3168; at 1 it would be 0.3006.
    assert!((3120..3280).contains(&zeros), "{zeros} of 10000");
}

#[test]
fn penalties_by_presence_and_frequency() {
    let greedy = Sampling { temperature: 0.0, ..off() };
    let once = |settings, logits: &[f32], history: &[u32]| {
        sampler(settings).sample(Logits::All(logits), history).unwrap()
    };
    let presence = Sampling { presence_penalty: 1.0, ..greedy.clone() };
    assert_eq!(once(presence.clone(), &[3.0, 2.5], &[0, 0, 0]), 1);
    assert_eq!(once(presence, &[3.0, 1.5], &[0, 0, 0]), 0);
    let frequency = Sampling { frequency_penalty: 1.0, ..greedy.clone() };
    assert_eq!(once(frequency.clone(), &[3.0, 1.5], &[0]), 0);
    assert_eq!(once(frequency, &[3.0, 1.5], &[0, 0]), 1);
    let blind = Sampling { presence_penalty: 9.0, repeat_last_n: 0, ..greedy };
    assert_eq!(once(blind, &[3.0, 1.5], &[0]), 0);
}

#[test]
fn biases_come_before_all_else() {
    let bias = |id, bias| Sampling { logit_bias: [(id, bias)].into(), ..off() };
    let logits = [3.0, 2.0, 1.0];
    assert_eq!(drawn(Sampling { top_k: 1, ..bias(2, 9.0) }, &logits), [2]);
    assert_eq!(drawn(bias(0, f32::MIN), &logits), [1, 2]);
    assert_eq!(drawn(Sampling { temperature: 0.0, ..bias(0, -1.5) }, &logits), [1]);
    assert!(bias(0, f32::NAN).check().is_err());
}

#[test]
fn numbers_stay_finite_whatever_is_asked_for() {
    let logits = [1.0, 3.0, -2.0, 0.5];
    let all = [
        Sampling { logit_bias: [(1, f32::MIN)].into(), ..off() },
        Sampling { logit_bias: [(0, f32::MAX), (1, f32::MAX)].into(), ..off() },
        Sampling { repeat_penalty: 3e38, ..off() },
        Sampling { repeat_penalty: 1e-45, ..off() },
        Sampling { frequency_penalty: f32::MAX, presence_penalty: f32::MAX, ..off() },
        Sampling { frequency_penalty: f32::MIN, presence_penalty: f32::MIN, ..off() },
    ];
    for plain in all {
        let plain = Sampling { repeat_penalty: plain.repeat_penalty * 1.1, ..plain };
        for settings in [
            Sampling { top_n_sigma: 1.0, ..plain.clone() },
            Sampling { typical_p: 0.5, ..plain.clone() },
            Sampling { min_p: 0.1, ..plain.clone() },
            Sampling { top_p: 0.9, dynatemp_range: 0.5, ..plain.clone() },
            Sampling { temperature: 0.0, typical_p: 0.5, ..plain.clone() },
        ] {
            let mut sampler = sampler(settings.clone());
            for _ in 0..20 {
                let token = sampler.sample(Logits::All(&logits), &[1, 2, 2]).unwrap();
                let is_impossible = |id| settings.logit_bias.get(&id) == Some(&f32::MIN);
                assert!(!is_impossible(token), "{settings:?}");
            }
        }
    }
    // Where nothing else is left.
    let none = Sampling { logit_bias: (0..4).map(|id| (id, f32::MIN)).collect(), ..off() };
    assert!(drawn(none, &logits)[0] < 4);
}

#[test]
fn what_is_banned_is_taken_only_where_nothing_else_is_left() {
    let mut sampler = sampler(Sampling { temperature: 0.0, ..off() });
    sampler.ban(vec![1]);
    assert_eq!(sampler.sample(Logits::All(&[1.0, 5.0, 2.0]), &[]).unwrap(), 2);
    let only = sampler.sample_of(Logits::All(&[1.0, 5.0, 2.0]), &[], |id| id == 1);
    assert_eq!(only.unwrap(), Some(1));
}

#[test]
fn the_order_of_the_samplers_is_that_of_the_list() {
    // Temperature 0.25 first makes the second 0.016 times as likely as the first.
    let logits = [1.0, 0.0];
    let usual = Sampling { min_p: 0.1, temperature: 0.25, ..off() };
    assert_eq!(drawn(usual.clone(), &logits), [0, 1]);
    let first = Sampling { samplers: vec![Stage::Temperature, Stage::MinP], ..usual.clone() };
    assert_eq!(drawn(first, &logits), [0]);
    // What is not in the list is not done.
    let none = Sampling { samplers: vec![], top_k: 1, temperature: 0.0, ..usual };
    assert_eq!(drawn(none, &logits), [0, 1]);
}

#[test]
fn so_many_candidates_are_needed() {
    let needed = |settings: Sampling| settings.needed();
    assert_eq!(needed(Sampling::default()), Some(40));
    assert_eq!(needed(Sampling::greedy()), Some(1));
    assert_eq!(needed(Sampling { top_k: 0, ..Sampling::greedy() }), Some(1));
    assert_eq!(needed(off()), None);
    assert_eq!(needed(Sampling { top_n_sigma: 1.0, ..Sampling::default() }), None);
    assert_eq!(needed(Sampling { typical_p: 0.5, ..off() }), None);
    assert_eq!(needed(Sampling { typical_p: 0.5, ..Sampling::default() }), Some(40));
    assert_eq!(needed(Sampling { typical_p: 0.5, top_k: 0, ..Sampling::greedy() }), None);
    let early = vec![Stage::Temperature, Stage::TopK];
    assert_eq!(needed(Sampling { samplers: early.clone(), ..Sampling::default() }), Some(40));
    let dynamic = Sampling { samplers: early, dynatemp_range: 0.5, ..Sampling::default() };
    assert_eq!(needed(dynamic), None);
}

#[test]
fn probabilities_are_taken_as_often_as_is_said() {
    let logits = [1.0, 0.5, 0.2, 0.0];
    let settings = [
        Sampling::default(),
        Sampling::greedy(),
        off(),
        Sampling { typical_p: 0.5, xtc_probability: 0.5, ..Sampling::default() },
        Sampling { typical_p: 0.5, xtc_probability: 0.5, ..Sampling::greedy() },
        Sampling { dynatemp_range: 0.5, top_n_sigma: 2.0, ..Sampling::default() },
        Sampling { xtc_probability: 0.5, xtc_threshold: 0.9, ..Sampling::default() },
        Sampling { samplers: vec![Stage::MinP, Stage::MinP], ..Sampling::default() },
    ];
    for settings in settings {
        let mut sampler = sampler(settings.clone());
        for _ in 0..10 {
            sampler.sample(Logits::All(&logits), &[]).unwrap();
        }
        let calls: u64 = sampler.calls().iter().map(|(_, calls)| calls).sum();
        assert_eq!(calls, 10 * settings.softmaxes(), "{settings:?}");
    }
}

#[test]
fn names_of_samplers_are_read() {
    for stage in Stage::ALL {
        assert_eq!(stage.name().parse(), Ok(stage));
    }
    assert_eq!("top-k".parse(), Ok(Stage::TopK));
    assert!("topk".parse::<Stage>().unwrap_err().contains("typ_p"));
}
