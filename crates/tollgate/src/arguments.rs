//! Values of arguments, with errors that say what is allowed in words.

use std::net::SocketAddr;
use std::time::Duration;

use tollgate_types::{Notation, Role, allowed};

/// A whole number of this type, with an error that names its range.
pub(crate) fn whole<T: TryFrom<i128>>(text: &str) -> Result<T, String> {
    let number = text.parse::<i128>().ok();
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| {
            let allowed = allowed(std::any::type_name::<T>(), Notation::Settings);
            format!("must be {allowed}")
        })
}

pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "must be an IP address and a port, such as 127.0.0.1:8090 or [::1]:8090".to_owned()
    })
}

pub(crate) fn parse_number(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| "must be a number, such as 0.5".to_owned())
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || "expected a number and a unit, such as 500ms, 30s, 5m or 1h".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(error)?;
    let number: f64 = text[..digits].parse().map_err(|_| error())?;
    let unit = match &text[digits..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(error()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| error())
}

pub(crate) fn parse_principal(text: &str) -> Result<(Role, String), String> {
    let (name, principal) = text
        .split_once('=')
        .ok_or("expected NAME=PRINCIPAL, such as notifier=User:alerts")?;
    let role = Role::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Role::ALL.into_iter().map(Role::name).collect();
        format!("{name}: must be one of {}", names.join(", "))
    })?;
    if !principal.contains(':') {
        return Err(format!(
            "{principal}: must have a type, such as User:{principal}"
        ));
    }
    Ok((role, principal.to_owned()))
}
