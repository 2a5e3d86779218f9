//! Tells how what stands under a username differs from what must stand there, as a person reads it. Passwords are
//! compared and never told.

use crate::store::foreign::aaa::{AttributeRow, FoundRow, Password, Standing, UserRows};

/// Attributes that hold a password, whichever way; only one of them may stand there.
const PASSWORDS: [&str; 8] = [
    "Cleartext-Password",
    "Crypt-Password",
    "User-Password",
    "NT-Password",
    "LM-Password",
    "MD5-Password",
    "SHA2-Password",
    "SSHA-Password",
];

/// Each difference as a clause of a sentence.
pub(super) fn differences(wanted: &UserRows, standing: &Standing) -> Vec<String> {
    let mut told = Vec::new();
    let (passwords, check): (Vec<&FoundRow>, Vec<&FoundRow>) =
        standing.check.iter().partition(|row| PASSWORDS.iter().any(|name| row.attribute.eq_ignore_ascii_case(name)));
    told.extend(password(&wanted.password, &passwords, standing));
    told.extend(table("radcheck", &wanted.check, &check));
    told.extend(table("radreply", &wanted.reply, &standing.reply.iter().collect::<Vec<_>>()));
    if wanted.groups != standing.groups {
        let named = |groups: &[String]| match groups {
            [] => "no group".to_owned(),
            groups => groups.join(", "),
        };
        told.push(format!("radusergroup has {}, not {}", named(&standing.groups), named(&wanted.groups)));
    }
    told
}

fn password(wanted: &Password, found: &[&FoundRow], standing: &Standing) -> Option<String> {
    let holds = |attribute: &str, value: Option<&str>| match found {
        [row] => row.attribute.eq_ignore_ascii_case(attribute) && row.op == ":=" && Some(row.value.as_str()) == value,
        _ => false,
    };
    let right = match wanted {
        Password::Missing => found.is_empty(),
        Password::Clear(secret) => holds("Cleartext-Password", Some(secret.expose())),
        Password::Crypt { digest, .. } => {
            let made = standing.remembered.as_ref().filter(|(made_for, _)| made_for == digest);
            holds("Crypt-Password", made.map(|(_, hash)| hash.as_str()))
        }
    };
    if right {
        return None;
    }
    let attribute = match wanted {
        Password::Missing => return Some("radcheck has a password and none is set here".to_owned()),
        Password::Clear(_) => "Cleartext-Password",
        Password::Crypt { .. } => "Crypt-Password",
    };
    Some(match found {
        [] => format!("radcheck lacks {attribute}"),
        [row] if row.attribute.eq_ignore_ascii_case(attribute) => {
            format!("radcheck has another password in {attribute}")
        }
        rows => {
            let names: Vec<&str> = rows.iter().map(|row| row.attribute.as_str()).collect();
            format!("radcheck has {}, not {attribute}", names.join(", "))
        }
    })
}

/// Differences of one table: by attribute, in the order they are wanted, then what is too many.
fn table(name: &str, wanted: &[AttributeRow], found: &[&FoundRow]) -> Vec<String> {
    let mut told = Vec::new();
    let mut attributes: Vec<&str> = Vec::new();
    for attribute in wanted.iter().map(|row| row.attribute.as_str()).chain(found.iter().map(|row| &*row.attribute)) {
        if !attributes.iter().any(|known| known.eq_ignore_ascii_case(attribute)) {
            attributes.push(attribute);
        }
    }
    for attribute in attributes {
        let is = |other: &str| other.eq_ignore_ascii_case(attribute);
        let ours: Vec<(&str, &str)> =
            wanted.iter().filter(|row| is(&row.attribute)).map(|row| (row.op, row.value.as_str())).collect();
        let theirs: Vec<(&str, &str)> =
            found.iter().filter(|row| is(&row.attribute)).map(|row| (row.op.as_str(), row.value.as_str())).collect();
        if ours == theirs {
            continue;
        }
        let shown = |rows: &[(&str, &str)]| {
            rows.iter().map(|(op, value)| format!("{op} {value}")).collect::<Vec<_>>().join(", ")
        };
        told.push(match (ours.as_slice(), theirs.as_slice()) {
            (_, []) => format!("{name} lacks {attribute} {}", shown(&ours)),
            ([], _) => format!("{name} has {attribute} {} too many", shown(&theirs)),
            _ => format!("{name} has {attribute} {}, not {}", shown(&theirs), shown(&ours)),
        });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Secret;

    fn found(attribute: &str, op: &str, value: &str) -> FoundRow {
        FoundRow { attribute: attribute.to_owned(), op: op.to_owned(), value: value.to_owned() }
    }

    fn wanted(password: Password) -> UserRows {
        UserRows {
            username: "ada@acme".to_owned(),
            check: Vec::new(),
            password,
            reply: vec![AttributeRow {
                attribute: "Mikrotik-Rate-Limit".to_owned(),
                op: "=",
                value: "20M/100M".to_owned(),
            }],
            groups: vec!["res-100".to_owned()],
        }
    }

    fn standing() -> Standing {
        Standing {
            check: vec![found("Crypt-Password", ":=", "$6$a$b")],
            reply: vec![found("Mikrotik-Rate-Limit", "=", "20M/100M")],
            groups: vec!["res-100".to_owned()],
            remembered: Some(("d1".to_owned(), "$6$a$b".to_owned())),
        }
    }

    fn crypt(digest: &str) -> Password {
        Password::Crypt { digest: digest.to_owned(), hash: None }
    }

    #[test]
    fn equal_rows_differ_in_nothing() {
        assert_eq!(differences(&wanted(crypt("d1")), &standing()), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_told_and_no_password_is() {
        let mut changed = standing();
        changed.check = vec![found("Crypt-Password", ":=", "$6$evil$hash"), found("Simultaneous-Use", ":=", "9")];
        changed.reply = vec![found("mikrotik-rate-limit", "=", "1G/1G"), found("Framed-Pool", "=", "gold")];
        changed.groups = Vec::new();
        assert_eq!(
            differences(&wanted(crypt("d1")), &changed),
            [
                "radcheck has another password in Crypt-Password",
                "radcheck has Simultaneous-Use := 9 too many",
                "radreply has Mikrotik-Rate-Limit = 1G/1G, not = 20M/100M",
                "radreply has Framed-Pool = gold too many",
                "radusergroup has no group, not res-100",
            ]
        );
        assert_eq!(
            differences(&wanted(crypt("d1")), &Standing::default()),
            [
                "radcheck lacks Crypt-Password",
                "radreply lacks Mikrotik-Rate-Limit = 20M/100M",
                "radusergroup has no group, not res-100"
            ]
        );
    }

    #[test]
    fn passwords_are_compared_by_what_they_were_made_of() {
        let clear = || Password::Clear(Secret::new("correct horse"));
        let mut in_clear = standing();
        in_clear.check = vec![found("Cleartext-Password", ":=", "correct horse")];
        let cases: [(Password, &Standing, Option<&str>); 6] = [
            (crypt("d2"), &standing(), Some("radcheck has another password in Crypt-Password")),
            (clear(), &standing(), Some("radcheck has Crypt-Password, not Cleartext-Password")),
            (crypt("d1"), &in_clear, Some("radcheck has Cleartext-Password, not Crypt-Password")),
            (clear(), &in_clear, None),
            (Password::Clear(Secret::new("x")), &in_clear, Some("radcheck has another password in Cleartext-Password")),
            (Password::Missing, &in_clear, Some("radcheck has a password and none is set here")),
        ];
        for (password, standing, expected) in cases {
            let told = differences(&wanted(password.clone()), standing);
            assert_eq!(told.first().map(String::as_str), expected, "{password:?}");
            assert!(!told.join(" ").contains("horse"));
        }
    }
}
