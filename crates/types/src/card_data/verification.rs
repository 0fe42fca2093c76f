//! Members that must not be stored after the authorisation, encrypted or not: the card verification code, the PIN and the
//! data of the magnetic stripe or the chip (PCI DSS 4.0, requirement 3.3).

/// Names with more letters and digits are none of them.
const MAX_NAME: usize = 40;
/// Longer names, with everything in them, are none of them.
pub(super) const MAX_NAME_BYTES: usize = 64;

/// Whether a member of this name, whose value is this JSON text, is one of them. Case is ignored, as is everything that is
/// neither letter nor digit. A boolean or `null` is none: it tells whether a code was given or was right.
pub(super) fn is_verification_data(name: &[u8], value: &[u8]) -> bool {
    match meaning(name) {
        Meaning::Other => false,
        Meaning::Code => !matches!(value, [b't' | b'f' | b'n', ..]),
        // `cid` is the code on American Express cards, and in other houses a customer or a campaign.
        Meaning::Ambiguous => is_short_code(value),
    }
}

/// Whether a member of this name may be one of them.
pub(super) fn is_name_of_verification_data(name: &[u8]) -> bool {
    !matches!(meaning(name), Meaning::Other)
}

/// Whether a name is that of a code, and of nothing else.
pub(super) fn is_code(name: &[u8]) -> bool {
    matches!(meaning(name), Meaning::Code)
}

/// Whether the last three letters and digits are those of one of the names below: of nearly every other name they are not,
/// and no more than them is read.
pub(super) fn ends_like_one(name: &[u8]) -> bool {
    let mut last = name
        .iter()
        .rev()
        .filter(|byte| byte.is_ascii_alphanumeric());
    let mut next = || last.next().map_or(0, u8::to_ascii_lowercase);
    let (third, second, first) = (next(), next(), next());
    matches!(
        &[first, second, third],
        b"cvv"
            | b"cvc"
            | b"cvn"
            | b"vv2"
            | b"vc2"
            | b"vn2"
            | b"cid"
            | b"ode"
            | b"ber"
            | b"lue"
            | b"ock"
            | b"ata"
            | b"cvd"
            | b"cve"
            | b"ipe"
            | b"csc"
            | b"cav"
            | b"av2"
            | b"ccv"
            | b"cv2"
            | b"pin"
            | b"ck1"
            | b"ck2"
            | b"ck3"
    )
}

enum Meaning {
    Other,
    Code,
    /// Only with a value of three or four digits.
    Ambiguous,
}

fn meaning(name: &[u8]) -> Meaning {
    if name.len() > MAX_NAME_BYTES || !ends_like_one(name) {
        return Meaning::Other;
    }
    let mut normal = [0; MAX_NAME];
    let mut length = 0;
    for byte in name.iter().filter(|byte| byte.is_ascii_alphanumeric()) {
        let Some(slot) = normal.get_mut(length) else {
            return Meaning::Other;
        };
        *slot = byte.to_ascii_lowercase();
        length += 1;
    }
    let name = &normal[..length];
    let is_code = match name {
        b"cid" | b"verificationcode" => return Meaning::Ambiguous,
        [.., b'c', b'v', b'v' | b'c' | b'n'] | [.., b'c', b'v', b'v' | b'c' | b'n', b'2'] => true,
        [.., b'd' | b'e' | b'r' | b'k' | b'a'] => {
            const ENDINGS: [&[u8]; 17] = [
                b"cvvcode",
                b"cvv2code",
                b"cvccode",
                b"cvc2code",
                b"csccode",
                b"cvncode",
                b"cvvnumber",
                b"cvcnumber",
                b"cscnumber",
                b"cvvvalue",
                b"cvcvalue",
                b"securitycode",
                b"verificationvalue",
                b"verificationcode",
                b"verificationnumber",
                b"pinblock",
                b"trackdata",
            ];
            const NAMES: [&[u8]; 13] = [
                b"cvd",
                b"cve",
                b"cardcode",
                b"pinnumber",
                b"track1data",
                b"track2data",
                b"track3data",
                b"track2equivalentdata",
                b"magstripe",
                b"magstripedata",
                b"magneticstripe",
                b"magneticstripedata",
                b"stripedata",
            ];
            ENDINGS.iter().any(|ending| name.ends_with(ending))
                || NAMES.contains(&name)
                || matches!(name, b"emvdata" | b"iccdata" | b"chipdata")
        }
        b"cardcsc" | b"cv2" | b"cardcv2" | b"cardccv" | b"csc" | b"cav" | b"cav2" | b"ccv"
        | b"ccv2" | b"pin" | b"cardpin" | b"encryptedpin" | b"track1" | b"track2" | b"track3" => {
            true
        }
        _ => false,
    };
    if is_code {
        Meaning::Code
    } else {
        Meaning::Other
    }
}

fn is_short_code(value: &[u8]) -> bool {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    let code = inner.unwrap_or(value).trim_ascii();
    matches!(code.len(), 3 | 4) && code.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_with_any_separators() {
        for name in [
            "cvv",
            "CVV2",
            "c_v_v",
            "Cvc",
            "card-cvc",
            "cardCvv",
            "security_code",
            "Security Code",
            "CardSecurityCode",
            "cvv_code",
            "csc",
            "card_csc",
            "cvvCode",
            "cvv2_code",
            "cscCode",
            "cv2",
            "card[cvc]",
            "payment[card][cvv]",
            "card.security_code",
            "cardVerificationNumber",
            "pin",
            "PIN_block",
            "track_data",
            "Track2",
            "track-1-data",
        ] {
            assert!(is_verification_data(name.as_bytes(), b"\"123\""), "{name}");
        }
        for name in [
            "cvv_result",
            "cvv_match",
            "pin_code_area",
            "pincode",
            "spin",
            "tracking_number",
            "track_id",
            "currency",
            "merchant_id",
            "opinion",
            "description",
            "",
        ] {
            assert!(!is_verification_data(name.as_bytes(), b"\"123\""), "{name}");
        }
    }

    #[test]
    fn whether_a_code_was_given_may_be_kept_and_a_customer_is_no_code() {
        for value in ["true", "false", "null"] {
            assert!(!is_verification_data(b"cvv", value.as_bytes()));
        }
        assert!(is_verification_data(b"cid", b"\"1234\""));
        assert!(is_verification_data(b"cid", b"123"));
        assert!(!is_verification_data(b"cid", b"\"customer-17\""));
        assert!(!is_verification_data(b"cid", b"12345"));
    }
}
