package sim

import (
	"fmt"
	"html"
	"math"
	"strings"
)

type point struct{ x, y float64 }

type line struct {
	name   string
	points []point
}

// chart is a line chart.
type chart struct {
	about  string
	lines  []line
	x      axis
	format func(float64) string
	most   float64   // of y, if it is fixed
	ticks  []float64 // of y, if they are fixed
	steps  []float64 // between them, if they are not decimal
}

// The size of charts, in pixels.
const (
	chartWidth, chartHeight = 560, 250
	chartLeft, chartRight   = 58, 24
	chartTop, chartBottom   = 30, 28
	maxPoints               = 700
	// The legend's rows, and what a letter takes in it at the most, as far as one can know.
	legendRow, letterWidth = 16, 6.4
	legendName             = 72 // letters at the most
)

var colors = []string{"#2563eb", "#ea580c", "#059669", "#c026d3", "#ca8a04", "#475569"}

func (c *chart) svg() string {
	top, ticks := c.scale()
	entries, rows := c.legend()
	above := chartTop + (rows-1)*legendRow
	height := chartHeight - chartTop + above
	px := func(x float64) float64 {
		return chartLeft + (x-c.x.least)/(c.x.most-c.x.least)*(chartWidth-chartLeft-chartRight)
	}
	py := func(y float64) float64 {
		return float64(height-chartBottom) - y/top*float64(height-above-chartBottom)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui,sans-serif" font-size="11" role="img" aria-label="%s">`, chartWidth, height, html.EscapeString(c.about))
	fmt.Fprintf(&b, "<title>%s</title>\n", html.EscapeString(c.about))
	for _, t := range ticks {
		if t > top*1.0001 {
			continue
		}
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#94a3b8" stroke-opacity=".3"/>`, chartLeft, chartWidth-chartRight, py(t), py(t))
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end" fill="#64748b">%s</text>`+"\n", chartLeft-6, py(t)+4, html.EscapeString(c.format(t)))
	}
	for x := c.x.least; x <= c.x.most*1.0001; x += c.x.step {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#64748b">%s</text>`+"\n", px(x), height-chartBottom+17, html.EscapeString(c.x.format(x)))
	}
	for i, e := range entries {
		fmt.Fprintf(&b, `<rect x="%.0f" y="%d" width="12" height="3" rx="1.5" fill="%s"/><text x="%.0f" y="%d" fill="#64748b">%s</text>`+"\n",
			e.x, 10+e.row*legendRow, colors[i%len(colors)], e.x+17, 15+e.row*legendRow, html.EscapeString(e.name))
	}
	for i, l := range c.lines {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.6" stroke-linejoin="round" points="`, colors[i%len(colors)])
		for _, p := range l.points {
			fmt.Fprintf(&b, "%.1f,%.1f ", px(p.x), py(min(p.y, top)))
		}
		b.WriteString(`"/>` + "\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// entry is a line's name in the legend.
type entry struct {
	name string
	x    float64
	row  int
}

// legend puts the lines' names one after the other, in as many rows as they take. Names that are longer than a row are cut.
func (c *chart) legend() (out []entry, rows int) {
	at, row := float64(chartLeft), 0
	for _, l := range c.lines {
		name := []rune(l.name)
		if len(name) > legendName {
			name = append(name[:legendName-1], '…')
		}
		width := 17 + letterWidth*float64(len(name))
		if at > chartLeft && at+width > chartWidth {
			at, row = chartLeft, row+1
		}
		out = append(out, entry{string(name), at, row})
		at += width + 18
	}
	return out, row + 1
}

// scale is the upper end of the y axis, and where its lines are.
func (c *chart) scale() (top float64, ticks []float64) {
	most := 0.0
	for _, l := range c.lines {
		for _, p := range l.points {
			most = max(most, p.y)
		}
	}
	if most == 0 {
		most = 1
	}
	if c.ticks != nil {
		return most * 1.03, c.ticks
	}
	most = max(most, c.most)
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, f := range []float64{0.1, 0.2, 0.25, 0.5, 1} {
		if most/(step*f) <= 5.01 {
			step *= f
			break
		}
	}
	for _, f := range c.steps {
		if step = f; most/f <= 5.01 {
			break
		}
	}
	top = math.Ceil(most/step-1e-9) * step
	for k := range int(math.Round(top/step)) + 1 {
		ticks = append(ticks, float64(k)*step)
	}
	return top, ticks
}

// thin averages so many points at a time that not too many are left.
func thin(points []point) []point {
	n := (len(points) + maxPoints - 1) / maxPoints
	if n <= 1 {
		return points
	}
	var out []point
	for i := 0; i < len(points); i += n {
		part := points[i:min(i+n, len(points))]
		var sum point
		for _, p := range part {
			sum.x, sum.y = sum.x+p.x, sum.y+p.y
		}
		out = append(out, point{sum.x / float64(len(part)), sum.y / float64(len(part))})
	}
	return out
}
