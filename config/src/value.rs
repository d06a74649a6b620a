//! Reading one value of the file into its type.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::section::Refusal;
use crate::{Bytes, Cores, CoresError, LogFormat, LogLevel, Spin, duration, nearest};

type Value<'a> = Spanned<DeValue<'a>>;

/// The most addresses one list may hold.
const ADDRESSES_MAX: usize = 64;
/// The most labels a node may have.
const LABELS_MAX: usize = 64;
/// The most characters of a node's name, a label, or a label's value.
const WORD_CHARS_MAX: usize = 63;

/// What a value is, in words for people.
fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `must be <wanted>, not <what it is>`
fn wrong_type(wanted: &str, value: &Value<'_>) -> Refusal {
    Refusal::must(format!("be {wanted}, not {}", type_name(value.get_ref())))
}

fn text<'v>(wanted: &str, value: &'v Value<'_>) -> Result<&'v str, Refusal> {
    value.get_ref().as_str().ok_or_else(|| wrong_type(wanted, value))
}

/// A whole number, or `None` when the value is one beyond 64 bits.
fn integer(value: &Value<'_>) -> Option<Option<i64>> {
    let integer = value.get_ref().as_integer()?;
    Some(i64::from_str_radix(integer.as_str(), integer.radix()).ok())
}

/// A whole number within `range`.
pub(crate) fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&Value<'_>) -> Result<T, Refusal>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
{
    move |value| {
        let number = integer(value).ok_or_else(|| wrong_type("a whole number", value))?;
        number
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| Refusal::must(format!("be from {} to {}", range.start(), range.end())))
    }
}

/// A size within `range`.
pub(crate) fn size(range: RangeInclusive<Bytes>) -> impl FnOnce(&Value<'_>) -> Result<Bytes, Refusal> {
    move |value| {
        let help = || "write sizes as text with a unit, such as \"512MiB\"";
        let text = text("a size", value).map_err(|refusal| refusal.help(help()))?;
        let size: Bytes = text.parse().map_err(Refusal::because)?;
        if !range.contains(&size) {
            let (low, high) = (range.start(), range.end());
            return Err(Refusal::must(format!("be from {low} to {high}; this is {size}")));
        }
        Ok(size)
    }
}

/// What is read in a second: 0 for nothing, or a size from 64 KiB to 1 TiB.
pub(crate) fn rate(value: &Value<'_>) -> Result<Bytes, Refusal> {
    if text("a size", value).is_ok_and(|text| text == "0") {
        return Ok(Bytes::new(0));
    }
    size(Bytes::new(64 << 10)..=Bytes::from_mib(1 << 20))(value)
        .map_err(|refusal| refusal.help("write a size for each second, such as \"16MiB\", or \"0\" for none"))
}

/// A duration within `range`.
pub(crate) fn time(range: RangeInclusive<Duration>) -> impl FnOnce(&Value<'_>) -> Result<Duration, Refusal> {
    move |value| {
        let help = || "write durations as text with a unit, such as \"10s\"";
        let text = text("a duration", value).map_err(|refusal| refusal.help(help()))?;
        let time = duration::parse(text).map_err(Refusal::because)?;
        if !range.contains(&time) {
            let (low, high) = (duration::display(*range.start()), duration::display(*range.end()));
            return Err(Refusal::must(format!(
                "be from {low} to {high}; this is {}",
                duration::display(time)
            )));
        }
        Ok(time)
    }
}

pub(crate) fn spin(value: &Value<'_>) -> Result<Spin, Refusal> {
    const SPIN_MAX: Duration = Duration::from_millis(10);
    if value.get_ref().as_str() == Some("always") {
        return Ok(Spin::Always);
    }
    let help = "write a duration such as \"50us\", or \"always\" to never sleep";
    time(Duration::ZERO..=SPIN_MAX)(value).map(Spin::For).map_err(|refusal| refusal.help(help))
}

pub(crate) fn cores(value: &Value<'_>) -> Result<Cores, Refusal> {
    if let Some(count) = integer(value) {
        let count = count.and_then(|count| u32::try_from(count).ok());
        return match count {
            Some(0) => Err(Refusal::because(CoresError::Zero)),
            Some(count) => Ok(Cores::Count(count)),
            None => Err(Refusal::must("be a count of cores that a machine can have")),
        };
    }
    text("\"all\", a count, or a list such as \"0-3,8\"", value)?.parse().map_err(Refusal::because)
}

pub(crate) fn log_format(value: &Value<'_>) -> Result<LogFormat, Refusal> {
    one_of(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

pub(crate) fn log_level(value: &Value<'_>) -> Result<LogLevel, Refusal> {
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    one_of(value, &levels.map(|level| (level.as_str(), level)))
}

/// One of a few words.
fn one_of<T: Copy>(value: &Value<'_>, words: &[(&str, T)]) -> Result<T, Refusal> {
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let wanted = format!("one of {}", quoted.join(", "));
    let text = text(&wanted, value)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let refusal = Refusal::must(format!("be {wanted}"));
    Err(match nearest(text, words.iter().map(|(word, _)| *word)) {
        Some(near) => refusal.help(format!("did you mean \"{near}\"?")),
        None => refusal,
    })
}

/// A name of a node: letters, digits, `-`, `_` and `.`, beginning with a letter or digit.
pub(crate) fn name(value: &Value<'_>) -> Result<Option<String>, Refusal> {
    let text = text("text", value)?;
    if !is_word(text) {
        return Err(Refusal::must(format!(
            "be 1 to {WORD_CHARS_MAX} letters, digits, `-`, `_` or `.`, beginning with a letter or digit"
        )));
    }
    Ok(Some(text.to_owned()))
}

fn is_word(text: &str) -> bool {
    text.len() <= WORD_CHARS_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The path of a directory.
pub(crate) fn directory(value: &Value<'_>) -> Result<PathBuf, Refusal> {
    path("a directory", value)
}

/// The path of a file or a block device.
pub(crate) fn file(value: &Value<'_>) -> Result<PathBuf, Refusal> {
    path("a disk or a file", value)
}

fn path(what: &str, value: &Value<'_>) -> Result<PathBuf, Refusal> {
    let text = text(&format!("the path of {what}"), value)?;
    if text.trim().is_empty() {
        return Err(Refusal::must(format!("name {what}; it is empty")));
    }
    if text.contains('\0') {
        return Err(Refusal::must("be a path; it contains a zero byte"));
    }
    Ok(PathBuf::from(text))
}

/// `{ rack = "1" }`
pub(crate) fn labels(value: &Value<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let help = "write labels as { rack = \"1\", zone = \"a\" }";
    let Some(table) = value.get_ref().as_table() else {
        return Err(wrong_type("a table of texts", value).help(help));
    };
    if table.len() > LABELS_MAX {
        return Err(Refusal::must(format!("have {LABELS_MAX} labels at most; it has {}", table.len())));
    }
    let mut labels = BTreeMap::new();
    for (key, value) in table.iter() {
        let name: &str = key.get_ref().as_ref();
        let legal = |what: &str| {
            Refusal::because(format!(
                "a label's {what} is 1 to {WORD_CHARS_MAX} letters, digits, `-`, `_` or `.`, beginning with a \
                 letter or digit"
            ))
        };
        if !is_word(name) {
            return Err(legal("name").at(key.span()));
        }
        let text = text("a table of texts", value).map_err(|refusal| refusal.help(help).at(value.span()))?;
        if !is_word(text) {
            return Err(legal("value").at(value.span()));
        }
        labels.insert(name.to_owned(), text.to_owned());
    }
    Ok(labels)
}

/// One address with a port.
pub(crate) fn address(port: u16) -> impl FnOnce(&Value<'_>) -> Result<SocketAddr, Refusal> {
    move |value| {
        let text = text("an address with a port", value)?;
        text.parse().map_err(|_| bad_address(text, port))
    }
}

/// How the elements of a list of addresses are read.
pub(crate) struct ListParser<T> {
    /// The port to suggest.
    port: u16,
    element: fn(&Value<'_>, u16) -> Result<T, Refusal>,
}

/// A list of addresses with ports. `port` is the one to suggest where it is missing.
pub(crate) fn addresses(port: u16) -> ListParser<SocketAddr> {
    ListParser { port, element: |value, port| address(port)(value) }
}

/// A list of addresses that hosts connect to, each with its port if it names one.
pub(crate) fn advertised(port: u16) -> ListParser<(IpAddr, Option<u16>)> {
    ListParser { port, element: advertised_address }
}

/// A list of discovery services that hosts are referred to.
pub(crate) fn referrals(port: u16) -> ListParser<SocketAddr> {
    let reached = |value: &Value<'_>, port| {
        let address = address(port)(value)?;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(Refusal::because(format!("hosts cannot connect to {address}"))
                .help("name the address and port of a discovery service, as hosts reach it"));
        }
        Ok(address)
    };
    ListParser { port, element: reached }
}

fn advertised_address(value: &Value<'_>, port: u16) -> Result<(IpAddr, Option<u16>), Refusal> {
    let text = text("an address", value)?;
    let (ip, port) = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
        (Ok(address), _) => (address.ip(), Some(address.port())),
        (_, Ok(ip)) => (ip, None),
        _ => return Err(bad_address(text, port)),
    };
    if ip.is_unspecified() || port == Some(0) {
        return Err(Refusal::because(format!("hosts cannot connect to {text}"))
            .help("name an address and port at which hosts reach this node"));
    }
    Ok((ip, port))
}

impl<T> ListParser<T> {
    /// The elements that could be read, and why others could not, each pointing at its element.
    pub(crate) fn read(&self, value: &Value<'_>) -> (Vec<T>, Vec<Refusal>) {
        let (mut read, mut refused) = (Vec::new(), Vec::new());
        let Some(array) = value.get_ref().as_array() else {
            let help = format!("write [\"10.0.0.11:{}\"]", self.port);
            return (read, vec![wrong_type("a list of addresses", value).help(help)]);
        };
        if array.len() > ADDRESSES_MAX {
            let most = format!("have {ADDRESSES_MAX} addresses at most; it has {}", array.len());
            return (read, vec![Refusal::must(most)]);
        }
        for element in array.iter() {
            match (self.element)(element, self.port) {
                Ok(address) => read.push(address),
                Err(refusal) => refused.push(refusal.at(element.span())),
            }
        }
        (read, refused)
    }
}

/// What is wrong with a text that is not `IP:PORT`, and the mend where it can be guessed.
fn bad_address(text: &str, port: u16) -> Refusal {
    let refusal = |why: &str| Refusal::because(format!("`{text}` {why}"));
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => return refusal("has no port").help(format!("write \"{ip}:{port}\"")),
        Ok(IpAddr::V6(ip)) => return refusal("has no port").help(format!("write \"[{ip}]:{port}\"")),
        Err(_) => {}
    }
    let numeric = format!("write a numeric address and a port, such as \"10.0.0.11:{port}\"");
    match text.rsplit_once(':') {
        Some((ip, _)) if ip.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() => {
            refusal("has no valid port; ports are 0 to 65535").help(numeric)
        }
        Some(("localhost", port)) => {
            refusal("is not numeric, and names are not looked up").help(format!("write \"127.0.0.1:{port}\""))
        }
        _ => refusal("is not a numeric address with a port; names are not looked up").help(numeric),
    }
}
