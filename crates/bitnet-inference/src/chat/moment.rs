//! The time that templates can ask for.

use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time as a calendar and a clock show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since the beginning of 1970 there.
    seconds: i64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

impl Moment {
    /// Seconds since the beginning of 1970, in the time zone whose clock is meant.
    #[must_use]
    pub fn new(seconds: i64) -> Moment {
        // Some thousand years in either direction.
        Moment { seconds: seconds.clamp(-(1 << 38), 1 << 38) }
    }

    /// Now, in universal time: the standard library knows no other.
    #[must_use]
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Moment::new(since.map_or(0, |since| since.as_secs() as i64))
    }

    /// The moment as `strftime` prints it.
    ///
    /// # Errors
    ///
    /// The letter that is none of those known.
    pub(super) fn format(self, format: &str) -> Result<String, char> {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let month_name = MONTHS[month as usize - 1];
        let day_name = DAYS[days.rem_euclid(7) as usize];
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut letter = chars.next().ok_or('%')?;
            // `-` is without zeros before the number.
            let plain = letter == '-';
            if plain {
                letter = chars.next().ok_or('-')?;
            }
            let twelve = (hour + 11) % 12 + 1;
            let number = match letter {
                'd' => day,
                'm' => month,
                'y' => year.rem_euclid(100),
                'H' => hour,
                'I' => twelve,
                'M' => minute,
                'S' => second,
                _ => {
                    match letter {
                        'Y' => out += &year.to_string(),
                        'B' => out += month_name,
                        'b' => out += &month_name[..3],
                        'A' => out += day_name,
                        'a' => out += &day_name[..3],
                        'p' => out += if hour < 12 { "AM" } else { "PM" },
                        'F' => out += &format!("{year}-{month:02}-{day:02}"),
                        'T' => out += &format!("{hour:02}:{minute:02}:{second:02}"),
                        '%' => out.push('%'),
                        other => return Err(other),
                    }
                    continue;
                }
            };
            out += &if plain { number.to_string() } else { format!("{number:02}") };
        }
        Ok(out)
    }
}

/// Year, month and day of a number of days since the beginning of 1970. Years are counted from March
/// here, so that the day that some of them have more is their last.
fn date(days: i64) -> (i64, i64, i64) {
    /// Days of 400 years, and from the first of March of year 0 to 1970.
    const CYCLE: i64 = 146_097;
    const SINCE_MARCH: i64 = 719_468;
    let days = days + SINCE_MARCH;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months of 31, 30, 31, 30, 31 days, twice and a bit.
    let month = (5 * day + 2) / 153;
    let first = (153 * month + 2) / 5;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next, month, day - first + 1)
}
