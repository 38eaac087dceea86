//! How far something is that takes its time: a bar on stderr, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for so many bytes. It goes when it is dropped.
pub(crate) fn bytes(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.with_style(style()).with_message(what)
}

/// A bar for so many tokens. It goes when it is dropped.
pub(crate) fn tokens(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.with_style(plain("{msg} [{bar:30}] {pos}/{len} tokens {per_sec} {eta}")).with_message(what)
}

/// Bars of bytes, without colours.
pub(crate) fn style() -> ProgressStyle {
    plain("{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}")
}

/// A bar without colours, as one of the templates above has it.
fn plain(template: &'static str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates are written above");
    style.progress_chars("=> ")
}
