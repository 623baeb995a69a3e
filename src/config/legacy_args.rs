//! The ancestors' command lines, made into ours: one dash before long flags, as Go's flag package reads them
//! (<https://pkg.go.dev/flag>), and a whole command line in one word, as Compose files in the wild pass it. Pure.

use std::ffi::OsString;

use super::settings::Setting;

/// Flags with a value, besides those of the settings.
const VALUES: [&str; 6] = ["name", "sock", "tlscacert", "tlscert", "tlskey", "config"];

/// Flags that are true when they stand alone.
const SWITCHES: [&str; 3] = ["wait", "tls", "tlsverify"];

/// The same arguments with two dashes. Works on all of `argv` or on what follows the program's name; what it does not
/// know stays as it is.
pub fn translate(args: Vec<OsString>) -> Vec<OsString> {
    let mut words = args.into_iter().flat_map(one_word_or_several);
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        if word == "--" {
            out.push(word);
            break;
        }
        match word.to_str().map(read) {
            None | Some(Word::Other) => out.push(word),
            Some(Word::Flag(flag)) => out.push(flag.into()),
            Some(Word::Wants(flag)) => out.push(with_value(&flag, words.next())),
        }
    }
    out.extend(words);
    out
}

enum Word {
    Other,
    /// Complete.
    Flag(String),
    /// The next word is its value, whatever that looks like.
    Wants(String),
}

fn read(word: &str) -> Word {
    let two_dashes = word.starts_with("--");
    let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
        return Word::Other;
    };
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    match value {
        None if VALUES.contains(&name) || Setting::find(name).is_some() => Word::Wants(format!("--{name}")),
        Some(value) if SWITCHES.contains(&name) => Word::Flag(format!("--{name}={}", go_bool(value))),
        _ if two_dashes => Word::Other,
        // A long flag we do not know: clap's answer to it names the nearest one that exists.
        _ if is_long(name) => Word::Flag(format!("--{flag}")),
        _ => Word::Other,
    }
}

/// Go has no clusters of short flags: two letters after one dash are a name.
fn is_long(name: &str) -> bool {
    name.len() > 1 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// What `strconv.ParseBool` takes.
fn go_bool(value: &str) -> &str {
    match value {
        "1" | "t" | "T" | "TRUE" | "True" => "true",
        "0" | "f" | "F" | "FALSE" | "False" => "false",
        other => other,
    }
}

fn with_value(flag: &str, value: Option<OsString>) -> OsString {
    let mut word = OsString::from(flag);
    if let Some(value) = value {
        word.push("=");
        word.push(value);
    }
    word
}

/// Splits a word that is a command line of flags, and no other.
fn one_word_or_several(word: OsString) -> Vec<OsString> {
    let Some(text) = word.to_str() else { return vec![word] };
    let line = unquoted(text.trim());
    if !line.starts_with('-') || !(line.contains(char::is_whitespace) || line.len() < text.len()) {
        return vec![word];
    }
    split(line).into_iter().map(OsString::from).collect()
}

/// Without the quotes that a list of words in YAML or an env file leaves around the whole.
fn unquoted(text: &str) -> &str {
    let inner =
        |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|rest| !rest.contains(quote));
    inner('\'').or_else(|| inner('"')).map_or(text, str::trim)
}

/// Words at white space; quotes of either kind hold a word together.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &[&str], expected: &[&str]) {
        let words = input.iter().map(OsString::from).collect();
        assert_eq!(translate(words), expected, "{input:?}");
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        check(&["-name", "a", "-name=b"], &["--name=a", "--name=b"]);
        check(&["--name", "a", "--name=b"], &["--name=a", "--name=b"]);
        check(&["-sock", "/d.sock", "-log-level", "debug"], &["--sock=/d.sock", "--log-level=debug"]);
        check(&["-wait", "-tls", "-tlsverify"], &["--wait", "--tls", "--tlsverify"]);
        check(
            &["-tls=false", "-tlsverify=1", "-wait=T"],
            &["--tls=false", "--tlsverify=true", "--wait=true"],
        );
        check(&["-help"], &["--help"]);
    }

    #[test]
    fn a_value_is_a_value_whatever_it_looks_like() {
        check(&["-name", "-name", "80=a"], &["--name=-name", "80=a"]);
        check(&["-name"], &["--name"]);
    }

    #[test]
    fn a_mistyped_long_flag_stays_one_word() {
        check(&["-nmae", "a"], &["--nmae", "a"]);
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        check(
            &["/usr/bin/ambassador", "80=a", "-h", "-V", "--workers=2", "-", "check"],
            &["/usr/bin/ambassador", "80=a", "-h", "-V", "--workers=2", "-", "check"],
        );
        check(&["--", "-name", "a"], &["--", "-name", "a"]);
        check(&["redis.example.com", "6379"], &["redis.example.com", "6379"]);
    }

    #[test]
    fn a_command_line_in_one_word_is_taken_apart() {
        check(&["-name a -name b"], &["--name=a", "--name=b"]);
        check(&["ambassador", "-name  a\t-name=b "], &["ambassador", "--name=a", "--name=b"]);
        check(&["'-name a -name b'"], &["--name=a", "--name=b"]);
        check(&["\"-name a\""], &["--name=a"]);
        check(&["-name 'a' -sock \"/x y\""], &["--name=a", "--sock=/x y"]);
        check(&["-name 'a"], &["--name=a"]);
    }

    #[test]
    fn a_route_with_white_space_is_left_for_the_grammar_to_refuse() {
        check(&["80=a b"], &["80=a b"]);
    }

    proptest! {
        #[test]
        fn no_words_at_all_can_make_it_panic(words in proptest::collection::vec("[-'\"=a-z ]{0,12}", 0..6)) {
            let _ = translate(words.into_iter().map(OsString::from).collect());
        }
    }
}
