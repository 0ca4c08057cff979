//! Chunks in the STREAM construction: a `Write` that encrypts and a `Read` that decrypts.

use std::io::{self, Read, Write};

use chacha20poly1305::aead::Payload;
use chacha20poly1305::aead::stream::{DecryptorBE32, EncryptorBE32};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};
use zeroize::Zeroizing;

use super::BackupError;
use super::header::{Header, LENGTH};

/// Plaintext octets of a full chunk.
const CHUNK: usize = 64 * 1024;

/// Octets of a Poly1305 tag.
const TAG: usize = 16;

/// The bit of a chunk's length that marks the last chunk.
const LAST: u32 = 1 << 31;

/// Encrypts what is written; [`Encrypting::finish`] writes the end mark.
pub(super) struct Encrypting<W: Write> {
    out: W,
    header: [u8; LENGTH],
    stream: EncryptorBE32<ChaCha20Poly1305>,
    pending: Zeroizing<Vec<u8>>,
}

impl<W: Write> Encrypting<W> {
    /// Writes the header.
    pub(super) fn new(mut out: W, header: &Header) -> Result<Self, BackupError> {
        out.write_all(&header.octets).map_err(BackupError::Stream)?;
        let cipher = ChaCha20Poly1305::new(header.key.as_slice().into());
        let stream = EncryptorBE32::from_aead(cipher, header.nonce.as_slice().into());
        Ok(Self { out, header: header.octets, stream, pending: Zeroizing::new(Vec::with_capacity(CHUNK)) })
    }

    /// Encrypts the last chunk and flushes.
    pub(super) fn finish(mut self) -> Result<W, BackupError> {
        let payload = Payload { msg: &self.pending, aad: &self.header };
        let sealed = self.stream.encrypt_last(payload).map_err(|_| BackupError::TooLarge("2^32 chunks"))?;
        write_chunk(&mut self.out, &sealed, LAST).and_then(|()| self.out.flush()).map_err(BackupError::Stream)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Encrypting<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.pending.len() >= CHUNK {
            let payload = Payload { msg: &self.pending, aad: &self.header };
            let sealed = self.stream.encrypt_next(payload).map_err(|_| io::Error::other("more than 2^32 chunks"))?;
            write_chunk(&mut self.out, &sealed, 0)?;
            self.pending.clear();
        }
        let taken = octets.get(..octets.len().min(CHUNK - self.pending.len())).unwrap_or_default();
        self.pending.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_chunk(out: &mut impl Write, sealed: &[u8], mark: u32) -> io::Result<()> {
    let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
    out.write_all(&(length | mark).to_be_bytes())?;
    out.write_all(sealed)
}

/// Decrypts what is read. Not a `Read`, which could not carry our errors.
pub(super) struct Decrypting<R: Read> {
    input: R,
    header: [u8; LENGTH],
    /// None after the last chunk.
    stream: Option<DecryptorBE32<ChaCha20Poly1305>>,
    plain: Zeroizing<Vec<u8>>,
    /// Octets of `plain` that were handed out.
    taken: usize,
    /// The file's octet at which the next chunk begins.
    position: u64,
}

impl<R: Read> Decrypting<R> {
    /// Continues after the header.
    pub(super) fn new(input: R, header: &Header) -> Self {
        let cipher = ChaCha20Poly1305::new(header.key.as_slice().into());
        let stream = DecryptorBE32::from_aead(cipher, header.nonce.as_slice().into());
        let position = u64::try_from(LENGTH).unwrap_or(0);
        Self { input, header: header.octets, stream: Some(stream), plain: Zeroizing::default(), taken: 0, position }
    }

    /// Fills `octets`, or says why not.
    pub(super) fn fill(&mut self, octets: &mut [u8]) -> Result<(), BackupError> {
        let mut rest = octets;
        while !rest.is_empty() {
            let available = self.available()?;
            if available.is_empty() {
                return Err(BackupError::Form("it ends within a record"));
            }
            let count = available.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(available.get(..count).unwrap_or_default());
            self.taken += count;
            rest = later;
        }
        Ok(())
    }

    /// Hands out at most `most` octets that are decrypted already or in the next chunk; none at the end.
    pub(super) fn some(&mut self, most: u64) -> Result<&[u8], BackupError> {
        let available = self.available()?.len();
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(available);
        let start = self.taken;
        self.taken += count;
        Ok(self.plain.get(start..start + count).unwrap_or_default())
    }

    /// Checks that nothing follows: neither plaintext nor octets of the file.
    pub(super) fn finish(mut self) -> Result<(), BackupError> {
        if !self.available()?.is_empty() {
            return Err(BackupError::Form("octets follow its end record"));
        }
        match self.input.read(&mut [0]).map_err(BackupError::Stream)? {
            0 => Ok(()),
            _ => Err(BackupError::Tampered(self.position)),
        }
    }

    fn available(&mut self) -> Result<&[u8], BackupError> {
        while self.taken >= self.plain.len() && self.stream.is_some() {
            self.next_chunk()?;
        }
        Ok(self.plain.get(self.taken..).unwrap_or_default())
    }

    fn next_chunk(&mut self) -> Result<(), BackupError> {
        let mut mark = [0; 4];
        self.read_exact(&mut mark)?;
        let mark = u32::from_be_bytes(mark);
        let tampered = BackupError::Tampered(self.position);
        let length = usize::try_from(mark & !LAST).unwrap_or(usize::MAX);
        if !(TAG..=CHUNK + TAG).contains(&length) {
            return Err(tampered);
        }
        let mut sealed = vec![0; length];
        self.read_exact(&mut sealed)?;
        let payload = Payload { msg: &sealed, aad: &self.header };
        let opened = if mark & LAST == 0 {
            self.stream.as_mut().and_then(|stream| stream.decrypt_next(payload).ok())
        } else {
            self.stream.take().and_then(|stream| stream.decrypt_last(payload).ok())
        };
        self.plain = Zeroizing::new(opened.ok_or(tampered)?);
        self.taken = 0;
        self.position += 4 + u64::try_from(length).unwrap_or(0);
        Ok(())
    }

    fn read_exact(&mut self, octets: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(octets).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Truncated,
            _ => BackupError::Stream(error),
        })
    }
}

/// Whether the chunks after the header end with an end mark and nothing follows: what can be said without the passphrase.
pub(super) fn ends_with_mark(input: &mut impl Read) -> Result<bool, BackupError> {
    loop {
        let mut mark = [0; 4];
        match input.read_exact(&mut mark) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other.map_err(BackupError::Stream)?,
        }
        let mark = u32::from_be_bytes(mark);
        let length = u64::from(mark & !LAST);
        if io::copy(&mut input.take(length), &mut io::sink()).map_err(BackupError::Stream)? < length {
            return Ok(false);
        }
        if mark & LAST != 0 {
            return Ok(input.read(&mut [0]).map_err(BackupError::Stream)? == 0);
        }
    }
}
