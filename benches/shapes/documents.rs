//! Documents in the manner of two public collections that JSON parsers are measured with, made by code: statuses as
//! Twitter's search gave them (half their text not ASCII, escapes, members that come and go), and events as GitHub's
//! timeline gives them (many types, each with a payload of its own). Structure and proportions are theirs, the text is not.

use std::fmt::Write as _;

use super::random::Random;

const LATIN: [&str; 12] =
    ["the", "rain", "over", "harbour", "light", "nobody", "asks", "tomorrow", "again", "train", "to", "Kyoto"];
const KANA: [&str; 10] =
    ["今日は", "雨が", "降って", "いる", "駅まで", "歩いた", "新しい", "写真を", "見つけて", "ください"];
const SIGNS: [&str; 6] = ["\\n", "\\\"", "\\/", "\\u2026", "🎉", "☔"];

/// Text of `words` words.
fn text(random: &mut Random, words: u64, out: &mut String) {
    let is_kana = random.one_in(2);
    for word in 0..words {
        if word > 0 && !is_kana {
            out.push(' ');
        }
        out.push_str(if random.one_in(9) {
            random.pick::<&str>(&SIGNS)
        } else if is_kana {
            random.pick::<&str>(&KANA)
        } else {
            random.pick::<&str>(&LATIN)
        });
    }
}

fn id(random: &mut Random) -> u64 {
    505_874_800_000_000_000 + random.below(130_000_000_000)
}

fn user(random: &mut Random, out: &mut String) {
    let number = id(random);
    write!(out, r#"{{"id":{number},"id_str":"{number}","name":""#).expect("writing to a string");
    text(random, 3, out);
    write!(out, r#"","screen_name":"user_{:x}","location":""#, random.below(1 << 30)).expect("writing to a string");
    let words = random.below(3);
    text(random, words, out);
    out.push_str(r#"","description":""#);
    let words = random.below(24);
    text(random, words, out);
    write!(
        out,
        r#"","url":null,"entities":{{"description":{{"urls":[]}}}},"protected":false,"followers_count":{},"friends_count":{},"listed_count":{},"created_at":"Sun Aug {:02} 23:04:{:02} +0000 2014","favourites_count":{},"utc_offset":{},"time_zone":{},"geo_enabled":{},"verified":false,"statuses_count":{},"lang":"ja","contributors_enabled":false,"profile_background_color":"C0DEED","profile_background_image_url":"http:\/\/abs.example.com\/images\/themes\/theme1\/bg.png","profile_image_url":"http:\/\/pbs.example.com\/profile_images\/{}\/normal.jpeg","profile_link_color":"0084B4","profile_use_background_image":true,"default_profile":true,"following":false}}"#,
        random.below(5000),
        random.below(2000),
        random.below(30),
        1 + random.below(28),
        random.below(60),
        random.below(9000),
        if random.one_in(2) { "32400" } else { "null" },
        if random.one_in(2) { "\"Tokyo\"" } else { "null" },
        random.one_in(2),
        random.below(90_000),
        id(random),
    )
    .expect("writing to a string");
}

/// One status. `depth` is 1 where another status may be inside it.
fn status(random: &mut Random, depth: u32, out: &mut String) {
    let number = id(random);
    write!(
        out,
        r#"{{"metadata":{{"result_type":"recent","iso_language_code":"ja"}},"created_at":"Sun Aug 31 00:29:{:02} +0000 2014","id":{number},"id_str":"{number}","text":""#,
        random.below(60)
    )
    .expect("writing to a string");
    let words = 6 + random.below(20);
    text(random, words, out);
    out.push_str(r#"","source":"<a href=\"http:\/\/example.com\/download\" rel=\"nofollow\">App for Phones<\/a>","truncated":false,"#);
    out.push_str(r#""in_reply_to_status_id":null,"in_reply_to_user_id":null,"user":"#);
    user(random, out);
    out.push_str(r#","geo":null,"coordinates":null,"place":null,"contributors":null,"#);
    if depth > 0 && random.below(10) < 6 {
        out.push_str(r#""retweeted_status":"#);
        status(random, depth - 1, out);
        out.push(',');
    }
    write!(
        out,
        r#""retweet_count":{},"favorite_count":{},"entities":{{"hashtags":["#,
        random.below(200),
        random.below(50)
    )
    .expect("writing to a string");
    for at in 0..random.below(3) {
        let comma = if at == 0 { "" } else { "," };
        write!(out, r#"{comma}{{"text":"tag{at}","indices":[{},{}]}}"#, at * 20, at * 20 + 9)
            .expect("writing to a string");
    }
    out.push_str(r#"],"symbols":[],"urls":[],"user_mentions":["#);
    for at in 0..random.below(3) {
        let (comma, number) = (if at == 0 { "" } else { "," }, id(random));
        write!(out, r#"{comma}{{"screen_name":"u{at}","name":"#).expect("writing to a string");
        out.push('"');
        text(random, 2, out);
        write!(out, r#"","id":{number},"id_str":"{number}","indices":[{},{}]}}"#, at * 15, at * 15 + 12)
            .expect("writing to a string");
    }
    out.push_str(r#"]},"favorited":false,"retweeted":false,"lang":"ja"}"#);
}

/// `count` statuses, each an event of 2 to 6 KB.
pub(crate) fn statuses(count: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(0x7717);
    (0..count)
        .map(|_| {
            let mut out = String::new();
            status(&mut random, 1, &mut out);
            out.into_bytes()
        })
        .collect()
}

/// A search's whole answer, of a hundred statuses, as one object.
pub(crate) fn search_answer() -> Vec<u8> {
    let statuses = statuses(100).join(&b',');
    [&b"{\"statuses\":["[..], &statuses, b"],\"search_metadata\":{\"completed_in\":0.087,\"count\":100}}"].concat()
}

fn repository(random: &mut Random, out: &mut String) {
    let number = random.below(300_000_000);
    write!(
        out,
        r#""repo":{{"id":{number},"name":"org{}/project-{:x}","url":"https://api.example.com/repos/org/project"}}"#,
        random.below(9000),
        random.below(1 << 24)
    )
    .expect("writing to a string");
}

fn payload(random: &mut Random, kind: u64, out: &mut String) {
    match kind {
        0..=4 => {
            let commits = 1 + random.below(3);
            write!(
                out,
                r#"{{"push_id":{},"size":{commits},"distinct_size":{commits},"ref":"refs/heads/main","head":"{:020x}{:020x}","before":"{:020x}{:020x}","commits":["#,
                random.below(1 << 36),
                random.next(),
                random.next(),
                random.next(),
                random.next()
            )
            .expect("writing to a string");
            for at in 0..commits {
                write!(
                    out,
                    r#"{}{{"sha":"{:020x}{:020x}","author":{{"email":"dev{}@example.com","name":"Dev Name"}},"message":""#,
                    if at == 0 { "" } else { "," },
                    random.next(),
                    random.next(),
                    random.below(5000)
                )
                .expect("writing to a string");
                for word in 0..4 + random.below(12) {
                    if word > 0 {
                        out.push(' ');
                    }
                    out.push_str(random.pick::<&str>(&LATIN));
                }
                if random.one_in(4) {
                    out.push_str(r"\n\nSigned-off-by: Dev");
                }
                out.push_str(r#"","distinct":true,"url":"https://api.example.com/repos/org/project/commits"}"#);
            }
            out.push_str("]}");
        }
        5 => out.push_str(r#"{"action":"started"}"#),
        6 | 7 => write!(
            out,
            r#"{{"ref":"feature/{:x}","ref_type":"branch","master_branch":"main","description":{},"pusher_type":"user"}}"#,
            random.below(1 << 20),
            if random.one_in(2) { "null" } else { "\"Tools for the harbour\"" }
        )
        .expect("writing to a string"),
        _ => {
            write!(
                out,
                r#"{{"action":"created","issue":{{"url":"https://api.example.com/issues/1","id":{},"number":{},"title":""#,
                random.below(1 << 32),
                random.below(9000)
            )
            .expect("writing to a string");
            let words = 3 + random.below(7);
            text(random, words, out);
            write!(
                out,
                r#"","user":{{"login":"dev{}","id":{},"site_admin":false}},"labels":[{}],"state":"open","locked":false,"assignee":null,"comments":{},"body":""#,
                random.below(9000),
                random.below(1 << 28),
                if random.one_in(2) { "" } else { r#"{"id":12,"name":"bug","color":"d73a4a"}"# },
                random.below(40)
            )
            .expect("writing to a string");
            let words = 20 + random.below(80);
            text(random, words, out);
            out.push_str(r#""}}"#);
        }
    }
}

/// `count` events of a timeline, 400 bytes to 2 KB.
pub(crate) fn timeline(count: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(0x617);
    (0..count)
        .map(|_| {
            let kind = random.below(10);
            let name = ["PushEvent", "PushEvent", "PushEvent", "PushEvent", "PushEvent", "WatchEvent", "CreateEvent",
                "CreateEvent", "IssuesEvent", "IssueCommentEvent"][kind as usize];
            let mut out = String::new();
            let actor = random.below(1 << 27);
            write!(
                out,
                r#"{{"id":"{}","type":"{name}","actor":{{"id":{actor},"login":"dev{actor:x}","gravatar_id":"","url":"https://api.example.com/users/dev","avatar_url":"https://avatars.example.com/u/{actor}?"}},"#,
                40_000_000_000 + random.below(9_000_000_000)
            )
            .expect("writing to a string");
            repository(&mut random, &mut out);
            out.push_str(r#","payload":"#);
            payload(&mut random, kind, &mut out);
            write!(out, r#","public":true,"created_at":"2026-11-21T12:{:02}:00Z""#, random.below(60))
                .expect("writing to a string");
            if random.one_in(3) {
                write!(out, r#","org":{{"id":{},"login":"org","url":"https://api.example.com/orgs/org"}}"#, random.below(1 << 26))
                    .expect("writing to a string");
            }
            out.push('}');
            out.into_bytes()
        })
        .collect()
}
