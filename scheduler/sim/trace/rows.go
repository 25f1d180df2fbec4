package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
)

// Source opens a file of a trace.
type Source func() (io.ReadCloser, error)

// File is a source that opens a file by its name.
func File(name string) Source {
	return func() (io.ReadCloser, error) { return os.Open(name) }
}

// Bytes is a source in memory.
func Bytes(data []byte) Source {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// rows is a table being read: CSV with a header, CSV whose columns are known, or JSON lines. The first error stays.
type rows struct {
	header  []string       // as it is written
	columns map[string]int // in lower case
	row     []string
	line    int // of the file
	width   int // fields that each row must have; 0 for any
	err     error
	next    func() ([]string, error)
}

// read calls f for each row of a source. Columns are those of a file without header, in order; they are required if there is a header.
// A source that is nil has no rows.
func read(name string, src Source, columns []string, headerless bool, f func(*rows) error) error {
	if src == nil {
		return nil
	}
	file, err := src()
	if err != nil {
		return fmt.Errorf("trace: %s: %w", name, err)
	}
	defer file.Close()
	if f, ok := file.(*os.File); ok {
		name = f.Name()
	}
	r := &rows{}
	err = r.open(file, columns, headerless)
	for err == nil {
		if r.row, err = r.next(); err != nil {
			break
		}
		if len(r.row) < r.width {
			err = fmt.Errorf("%d fields: want %d", len(r.row), r.width)
			break
		}
		if err = f(r); err == nil {
			err = r.err
		}
	}
	var broken *csv.ParseError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &broken):
		return fmt.Errorf("trace: %s:%d: %w", name, broken.Line, broken.Err)
	}
	return fmt.Errorf("trace: %s:%d: %w", name, max(r.line, 1), err)
}

func (r *rows) open(file io.Reader, columns []string, headerless bool) error {
	in := bufio.NewReaderSize(file, 1<<16)
	if magic, _ := in.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = bufio.NewReaderSize(z, 1<<16)
	}
	if first, _ := in.Peek(1); len(first) == 1 && first[0] == '{' {
		r.jsonLines(in, columns)
		return nil
	}
	c := csv.NewReader(in)
	c.ReuseRecord, c.FieldsPerRecord, c.LazyQuotes = true, -1, true
	first, err := c.Read()
	if err != nil {
		return err
	}
	read := func() ([]string, error) {
		row, err := c.Read()
		if err == nil {
			r.line, _ = c.FieldPos(0)
		}
		return row, err
	}
	r.next = read
	r.columns = map[string]int{}
	if headerless && first[0] != columns[0] {
		for i, name := range columns {
			r.columns[name] = i
		}
		row := append([]string(nil), first...)
		r.width, r.line = len(columns), 1
		r.next = func() ([]string, error) {
			r.next = read
			return row, nil
		}
		return nil
	}
	for i, name := range first {
		name = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))
		r.header = append(r.header, name)
		r.columns[strings.ToLower(name)] = i
	}
	for _, name := range columns {
		i, ok := r.columns[strings.ToLower(name)]
		if !ok {
			return fmt.Errorf("no column %q in the header", name)
		}
		r.width = max(r.width, i+1)
	}
	return nil
}

// jsonLines reads objects, nested ones by "outer.inner". Columns that an object doesn't have are empty: BigQuery leaves out what is null.
func (r *rows) jsonLines(in io.Reader, columns []string) {
	r.columns = map[string]int{}
	for i, name := range columns {
		r.columns[strings.ToLower(name)] = i
	}
	dec := json.NewDecoder(in)
	dec.UseNumber()
	r.next = func() ([]string, error) {
		var object map[string]any
		r.line++ // an object a line, as BigQuery writes them
		if err := dec.Decode(&object); err != nil {
			return nil, err
		}
		row := make([]string, len(r.columns))
		r.flatten("", object, &row)
		return row, nil
	}
}

func (r *rows) flatten(prefix string, object map[string]any, row *[]string) {
	for name, v := range object {
		name = prefix + strings.ToLower(name)
		var text string
		switch v := v.(type) {
		case map[string]any:
			r.flatten(name+".", v, row)
			continue
		case string:
			text = v
		case json.Number:
			text = v.String()
		case bool:
			text = strconv.FormatBool(v)
		default:
			continue // lists and nulls
		}
		if i, ok := r.columns[name]; ok {
			(*row)[i] = text
		}
	}
}

// str is the value of a column, "" if the row hasn't got it or says there is none.
func (r *rows) str(column string) string {
	i, ok := r.columns[strings.ToLower(column)]
	if !ok || i >= len(r.row) {
		return ""
	}
	v := strings.TrimSpace(r.row[i])
	switch v {
	case "NULL", "null", "nan", "NaN", "\\N":
		return ""
	}
	return v
}

// num is a number; ok is false if there is none.
func (r *rows) num(column string) (v float64, ok bool) {
	s := r.str(column)
	if s == "" {
		return 0, false
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		r.fail("column %s: %q: want a number", column, s)
		return 0, false
	}
	return v, true
}

// int is a whole number, 0 if there is none; beyond int64 it is at its end.
func (r *rows) int(column string) int64 {
	s := r.str(column)
	if s == "" {
		return 0
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return v
	}
	v, _ := r.num(column) // as 1e6, or 12.0
	return int64(max(min(v, math.MaxInt64/2), math.MinInt64/2))
}

func (r *rows) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}
