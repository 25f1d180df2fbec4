package httpapi

import (
	"bufio"
	"net"
	"net/http"
)

// Hijack lets protocols be switched.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.wrote, w.code = true, http.StatusSwitchingProtocols
	}
	return c, rw, err
}
