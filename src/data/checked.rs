//! Checks of parquet files that the parquet crate does not make. It reserves memory for as many
//! elements as a list or a dictionary says it has, before it reads the first one; it gives as many
//! rows as the footer claims, although the columns have ended; and it panics on some damaged files.
//! So these numbers are compared with what is there, and a panic becomes an error.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::parquet::bloom_filter::Sbbf;
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::schema::types::Type;

/// The most elements of a schema. The parquet crate reads nested ones by recursion.
const MOST_ELEMENTS: usize = 1000;
/// The deepest nesting of the footer's structures; a valid footer has 6 levels.
const MOST_LEVELS: usize = 32;

fn damaged(text: &str) -> ParquetError {
    ParquetError::General(text.to_owned())
}

/// The result of `read`, in which a panic is an error.
pub fn caught<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(damaged("its parts contradict each other")))
}

/// A parquet file whose counts are checked before they are believed.
pub struct CheckedFile(SerializedFileReader<File>);

impl CheckedFile {
    /// Opens a file.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn open(mut file: File) -> Result<Self> {
        check_footer(&mut file)?;
        let file = caught(|| SerializedFileReader::new(file))?;
        file.metadata().row_groups().iter().try_for_each(check_group)?;
        Ok(Self(file))
    }
}

/// Checks that columns without lists have a value, or a null, in every row. The parquet crate reads
/// as many rows as the group claims, whatever its columns have.
fn check_group(group: &RowGroupMetaData) -> Result<()> {
    let mut plain = group.columns().iter().filter(|column| column.column_descr().max_rep_level() == 0);
    match plain.find(|column| column.num_values() != group.num_rows()) {
        None if group.num_rows() >= 0 => Ok(()),
        _ => Err(damaged("a column has another number of rows than the others")),
    }
}

impl FileReader for CheckedFile {
    fn metadata(&self) -> &ParquetMetaData {
        self.0.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.0.num_row_groups()
    }

    fn get_row_group(&self, index: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        Ok(Box::new(CheckedGroup(self.0.get_row_group(index)?)))
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

struct CheckedGroup<'a>(Box<dyn RowGroupReader + 'a>);

impl RowGroupReader for CheckedGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> Result<Box<dyn PageReader>> {
        let left = self.metadata().column(index).num_values();
        Ok(Box::new(CheckedPages { pages: self.0.get_column_page_reader(index)?, left }))
    }

    fn get_column_bloom_filter(&self, index: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(index)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

struct CheckedPages {
    pages: Box<dyn PageReader>,
    /// Values, nulls included, that the footer promises and that have not come.
    left: i64,
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        match &page {
            // A value takes at least a byte.
            Some(Page::DictionaryPage { buf, num_values, .. }) if *num_values as usize > buf.len() => {
                return Err(damaged("a dictionary has more values than bytes"));
            }
            Some(Page::DataPage { num_values, .. } | Page::DataPageV2 { num_values, .. }) => {
                self.left -= i64::from(*num_values);
            }
            None if self.left > 0 => return Err(damaged("a column ends too early")),
            Some(Page::DictionaryPage { .. }) | None => {}
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// Checks the lists in a file's footer. Says nothing of a file that has none: the parquet crate
/// does.
fn check_footer(file: &mut File) -> Result<()> {
    let size = file.metadata()?.len();
    let Some(end) = size.checked_sub(8) else { return Ok(()) };
    let mut tail = [0; 8];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut tail)?;
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    let Some(start) = end.checked_sub(length).filter(|_| &tail[4..] == b"PAR1") else { return Ok(()) };
    let mut footer = vec![0; length as usize];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut footer)?;
    Thrift(&footer).structure(0)
}

/// Skips values in Thrift's compact protocol
/// (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn skip(&mut self, count: usize) -> Result<()> {
        self.0 = self.0.get(count..).ok_or_else(|| damaged("the footer ends too early"))?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.0.first().copied().unwrap_or_default();
        self.skip(1).map(|()| byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(damaged("a number in the footer has more than 64 bits"))
    }

    /// A number of bytes, or of elements of at least a byte each.
    fn count(&mut self) -> Result<usize> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count <= self.0.len() { Ok(count) } else { Err(damaged("a list in the footer is longer than the footer")) }
    }

    fn structure(&mut self, level: usize) -> Result<()> {
        let mut field = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                // The id follows in zigzag form.
                0 => self.varint()? >> 1,
                difference => field + u64::from(difference),
            };
            let is_schema = level == 0 && field == 2;
            match head & 15 {
                // The value of a boolean field is its type.
                1 | 2 => {}
                kind => self.value(kind, level + 1, if is_schema { MOST_ELEMENTS } else { usize::MAX })?,
            }
        }
    }

    /// Skips a value. A list of more than `most` elements is an error.
    fn value(&mut self, kind: u8, level: usize, most: usize) -> Result<()> {
        if level > MOST_LEVELS {
            return Err(damaged("the footer is nested too deeply"));
        }
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip(8),
            8 => self.count().and_then(|length| self.skip(length)),
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.count()? } else { usize::from(head >> 4) };
                if count > most {
                    return Err(damaged("the schema has too many columns"));
                }
                (0..count).try_for_each(|_| self.value(head & 15, level + 1, usize::MAX))
            }
            12 => self.structure(level),
            _ => Err(damaged("the footer has a value of an unknown type")),
        }
    }
}
