//! The nearest right word to a wrong one.

/// The candidate with the smallest edit distance to `word`, when one is near enough to be what was meant.
///
/// Near enough is a third of the longer word's letters, and at least one. A word that is a whole part of a
/// candidate (`depth` for `queue_depth`) counts as near too. The first of equals wins.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Beyond this a key is not a slip of the finger, and the distance would cost quadratic time.
    const WORD_LEN_MAX: usize = 64;
    if word.len() > WORD_LEN_MAX {
        return None;
    }
    let word = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let allowed = (word.chars().count().max(candidate.chars().count()) / 3).max(1);
            let distance = distance(&word, candidate);
            let part = candidate.split('_').any(|part| part == word);
            (distance <= allowed || part).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insert, delete, replace, or swap of neighbours, each counting one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_previous = vec![0; b.len() + 1];
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(previous[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_previous[j - 2] + 1);
            }
        }
        before_previous = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("lisen", "listen"), 1);
        assert_eq!(distance("lsiten", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn finds_what_was_meant_and_nothing_far() {
        let keys = ["listen", "discovery", "advertise", "queue_depth"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("LISTEN", keys), Some("listen"));
        assert_eq!(nearest("discover", keys), Some("discovery"));
        assert_eq!(nearest("depth", keys), Some("queue_depth"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
