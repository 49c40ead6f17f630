//! Where a key goes: as Kafka's default partitioner has it (murmur2), so that
//! Tidings and a Kafka producer put a key into the same partition.

use tidings_types::Partition;

/// The partition of `key` in a topic of so many.
pub fn partition_of(key: &[u8], partitions: u32) -> Partition {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let word: [u8; 4] = word.try_into().unwrap_or_default();
        let mut k = u32::from_le_bytes(word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        let mut last = [0; 4];
        for (place, byte) in last.iter_mut().zip(tail) {
            *place = *byte;
        }
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_where_kafkas_default_partitioner_puts_it() {
        // Values of org.apache.kafka.common.utils.UtilsTest.
        let expected: [(&[u8], u32); 6] = [
            (b"21", 3_321_034_988),
            (b"foobar", 3_504_634_814),
            (b"a-little-bit-long-string", 3_308_985_760),
            (b"a-little-bit-longer-string", 2_808_662_467),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 4_236_069_325),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in expected {
            assert_eq!(murmur2(key), hash, "{key:?}");
        }
        for count in 1..20 {
            assert!(partition_of(b"21", count) < count);
        }
    }
}
