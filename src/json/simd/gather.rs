//! The table by which sets without a byte compress move wanted bytes together, eight at a time. Pure.

/// For each set of wanted bytes among eight: which byte goes to which place, as a byte shuffle takes it. Places behind
/// the last wanted byte get byte 0, which is of no meaning.
pub(super) static MOVES: [[u8; 8]; 256] = {
    let mut moves = [[0; 8]; 256];
    let mut wanted = 0;
    while wanted < moves.len() {
        let (mut from, mut to) = (0, 0);
        while from < 8 {
            if wanted >> from & 1 == 1 {
                moves[wanted][to] = from as u8;
                to += 1;
            }
            from += 1;
        }
        wanted += 1;
    }
    moves
};
