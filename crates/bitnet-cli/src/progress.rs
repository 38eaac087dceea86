//! How far something is that takes its time: a bar on stderr, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for so many bytes. It goes when it is dropped.
pub(crate) fn bytes(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.with_style(style()).with_message(what)
}

/// Bars of bytes, without colours.
pub(crate) fn style() -> ProgressStyle {
    let template =
        "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let style =
        ProgressStyle::with_template(template).expect("the template is written right above");
    style.progress_chars("=> ")
}
