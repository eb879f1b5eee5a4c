// The app on Go's net/http: `app PORT`.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
)

type seen struct {
	Method   string   `json:"method"`
	Path     string   `json:"path"`
	Role     []string `json:"role"`
	Identity []string `json:"identity"`
	Attempt  string   `json:"attempt"`
}

func main() {
	log, err := os.OpenFile(os.Getenv("HOSTILE_LOG"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		panic(err)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		line, _ := json.Marshal(seen{r.Method, r.URL.Path, append([]string{}, r.Header.Values("X-Role")...),
			append([]string{}, r.Header.Values("X-Forwarded-Client-Cert")...), r.Header.Get("X-Attempt")})
		log.Write(append(line, '\n'))
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "ok")
	}
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(answer)))
}
