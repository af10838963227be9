//! Emoji that are joined of several, such as a person and a profession.
//!
//! The joiner is invisible, so it is taken for part of an emoji only between two that it makes one picture of. Anywhere
//! else two texts with and without it would look the same.

/// The joiner (ZERO WIDTH JOINER).
pub(super) const JOINER: char = '\u{200d}';

/// Pairs that are one emoji when they are joined, besides those of people.
const PAIRS: [(char, char); 20] = [
    ('🏳', '🌈'),
    ('🏳', '⚧'),
    ('🏴', '☠'),
    ('❤', '🔥'),
    ('❤', '🩹'),
    ('👁', '🗨'),
    ('🐕', '🦺'),
    ('🐈', '⬛'),
    ('🐻', '❄'),
    ('🐦', '⬛'),
    ('🐦', '🔥'),
    ('🍋', '🟩'),
    ('🍄', '🟫'),
    ('⛓', '💥'),
    ('😮', '💨'),
    ('😵', '💫'),
    ('😶', '🌫'),
    ('🙂', '↔'),
    ('🙂', '↕'),
    ('🫱', '🫲'),
];

/// Whether a joiner makes one emoji of these two. Skin tones and variation selectors are left out of both.
pub(super) fn joins(before: char, after: char) -> bool {
    match after {
        '👦'..='👩' | '🧑' | '🧒' => is_adult_or_child(before) || matches!(before, '❤' | '💋' | '🤝'),
        '❤' | '💋' | '🤝' => is_adult_or_child(before) || (before, after) == ('❤', '💋'),
        '♀'
        | '♂'
        | '⚕'
        | '⚖'
        | '✈'
        | '➡'
        | '🦰'..='🦳'
        | '🌾'
        | '🍳'
        | '🍼'
        | '🎄'
        | '🎓'
        | '🎤'
        | '🎨'
        | '🏫'
        | '🏭'
        | '💻'
        | '💼'
        | '🔧'
        | '🔬'
        | '🚀'
        | '🚒'
        | '🦯'
        | '🦼'
        | '🦽' => is_person(before),
        after => PAIRS.contains(&(before, after)),
    }
}

/// Whether a character belongs to the emoji before it: a skin tone, or the selector of the coloured form.
pub(super) fn is_modifier(c: char) -> bool {
    matches!(c, '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
}

fn is_adult_or_child(c: char) -> bool {
    matches!(c, '👦'..='👩' | '🧑' | '🧒')
}

fn is_person(c: char) -> bool {
    is_adult_or_child(c)
        || matches!(c, '👮'..='👱' | '👳' | '👷' | '💁' | '💂' | '💆' | '💇' | '🕵' | '🙅'..='🙇' | '🙋' | '🙍' | '🙎'
            | '🚣' | '🚴'..='🚶' | '🤦' | '🤵' | '🤷'..='🤹' | '🤼'..='🤾' | '🦸' | '🦹' | '🧍'..='🧏' | '🧓'..='🧟'
            | '🏃' | '🏄' | '🏊'..='🏌' | '⛹')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_joins_that_are_one_picture_count() {
        for (before, after) in [
            ('👩', '💻'),
            ('🧑', '🚀'),
            ('👨', '👩'),
            ('👩', '❤'),
            ('❤', '💋'),
            ('💋', '👨'),
            ('🤷', '♀'),
            ('🏳', '🌈'),
            ('🫱', '🫲'),
        ] {
            assert!(joins(before, after), "{before} {after}");
        }
        for (before, after) in [
            ('a', '💻'),
            ('🎉', '🎉'),
            ('💻', '👩'),
            ('🌈', '🏳'),
            ('🙈', '♀'),
            ('👩', 'a'),
            ('1', '2'),
            ('❤', '❤'),
        ] {
            assert!(!joins(before, after), "{before} {after}");
        }
    }
}
