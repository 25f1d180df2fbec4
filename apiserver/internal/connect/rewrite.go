package connect

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// rewriteResponse makes links to the host behind lead through the proxy: in redirects and in HTML.
func rewriteResponse(resp *http.Response, target *url.URL, prefix string) error {
	if l := resp.Header.Get("Location"); l != "" {
		resp.Header.Set("Location", rewriteLink(l, target, prefix))
		return nil
	}
	ct, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if strings.TrimSpace(ct) != "text/html" || resp.Header.Get("Content-Encoding") != "" || resp.Request.Method == http.MethodHead {
		return nil
	}
	var out bytes.Buffer
	err := rewriteHTML(&out, resp.Body, target, prefix)
	resp.Body.Close()
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(&out)
	resp.ContentLength = int64(out.Len())
	resp.Header.Set("Content-Length", strconv.Itoa(out.Len()))
	return nil
}

// rewriteLink changes absolute links and those that begin with a slash; relative ones are right as they are.
func rewriteLink(link string, target *url.URL, prefix string) string {
	u, err := url.Parse(link)
	if err != nil || u.Host != "" && u.Host != target.Host || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
		return link
	}
	if u.Host == "" && !strings.HasPrefix(u.Path, "/") {
		return link
	}
	// What has been through the proxy before keeps its path.
	if u.Host == "" && strings.HasPrefix(u.Path, prefix+"/") {
		return link
	}
	slash := strings.HasSuffix(u.Path, "/")
	u.Scheme, u.Host = "", ""
	u.Path = path.Join(prefix, u.Path)
	if slash && !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return u.String()
}

// linkAttributes are those of HTML elements that hold an address.
var linkAttributes = map[atom.Atom][]string{
	atom.A: {"href"}, atom.Applet: {"codebase"}, atom.Area: {"href"}, atom.Audio: {"src"}, atom.Base: {"href"},
	atom.Blockquote: {"cite"}, atom.Body: {"background"}, atom.Button: {"formaction"}, atom.Del: {"cite"}, atom.Embed: {"src"},
	atom.Form: {"action"}, atom.Frame: {"longdesc", "src"}, atom.Head: {"profile"}, atom.Html: {"manifest"},
	atom.Iframe: {"longdesc", "src"}, atom.Img: {"longdesc", "src", "usemap"}, atom.Input: {"src", "usemap", "formaction"},
	atom.Ins: {"cite"}, atom.Link: {"href"}, atom.Object: {"classid", "codebase", "data", "usemap"}, atom.Q: {"cite"},
	atom.Script: {"src"}, atom.Source: {"src"}, atom.Video: {"poster", "src"},
}

func rewriteHTML(w io.Writer, r io.Reader, target *url.URL, prefix string) error {
	z := html.NewTokenizer(r)
	for {
		typ := z.Next()
		if typ == html.ErrorToken {
			if z.Err() != io.EOF {
				return z.Err()
			}
			_, err := w.Write(z.Raw()) // a tag that does not end
			return err
		}
		if typ != html.StartTagToken && typ != html.SelfClosingTagToken {
			if _, err := w.Write(z.Raw()); err != nil {
				return err
			}
			continue
		}
		raw := bytes.Clone(z.Raw()) // Token changes it
		t := z.Token()
		changed := false
		for _, name := range linkAttributes[t.DataAtom] {
			for i := range t.Attr {
				if t.Attr[i].Key != name {
					continue
				}
				if l := rewriteLink(t.Attr[i].Val, target, prefix); l != t.Attr[i].Val {
					t.Attr[i].Val, changed = l, true
				}
			}
		}
		if changed {
			raw = []byte(t.String())
		}
		if _, err := w.Write(raw); err != nil {
			return err
		}
	}
}
