package openapi

import (
	"encoding/json"
	"fmt"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func gvkValue(k schema.GroupVersionKind) object {
	return object{"group": k.Group, "kind": k.Kind, "version": k.Version}
}

func (s *Spec) info() object { return object{"title": "Kubernetes", "version": s.version} }

func (s *Spec) jsonV2() ([]byte, error) {
	var all []Resource
	for _, p := range s.paths() {
		all = append(all, s.groups[p]...)
	}
	d, err := load(embeddedV2, nil) // custom kinds are described in v3 alone
	if err != nil {
		return nil, err
	}
	paths, roots := object{}, map[string]bool{}
	for _, r := range all {
		for _, p := range pathsOf(r, d) {
			item, _ := paths[p.template].(object)
			if item == nil {
				item = object{"parameters": pathParametersV2(p)}
				paths[p.template] = item
			}
			for _, o := range p.operations {
				item[o.method] = o.v2(roots)
			}
		}
	}
	return json.Marshal(object{
		"swagger": "2.0", "info": s.info(), "paths": paths, "definitions": d.closure(roots),
		"securityDefinitions": object{"BearerToken": object{
			"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
		}},
		"security": []object{{"BearerToken": []string{}}},
	})
}

func pathParametersV2(p path) []object {
	out := []object{}
	for _, v := range pathVariables(p) {
		out = append(out, object{"name": v.name, "in": "path", "type": "string", "required": true, "uniqueItems": true, "description": v.description})
	}
	return out
}

func pathVariables(p path) []param {
	var out []param
	if p.name {
		out = append(out, param{"name", "string", "name of the object"})
	}
	if p.namespace {
		out = append(out, param{"namespace", "string", "object name and auth scope, such as for teams and projects"})
	}
	if p.subpath {
		out = append(out, param{"path", "string", "path to the resource"})
	}
	return out
}

func (o operation) common(out object) object {
	out["operationId"], out["description"], out["tags"] = o.id, o.description, []string{o.tag}
	out["x-kubernetes-action"] = o.action
	if o.gvk.Kind != "" {
		out[gvkExtension] = gvkValue(o.gvk)
	}
	return out
}

var codeText = map[string]string{"200": "OK", "201": "Created", "202": "Accepted", "401": "Unauthorized"}

func (o operation) v2(roots map[string]bool) object {
	params := []object{}
	if o.bodyModel != "" {
		roots[o.bodyModel] = true
		params = append(params, object{
			"name": "body", "in": "body", "required": o.bodyModel != modelDeleteOptions, "schema": object{"$ref": "#/definitions/" + o.bodyModel},
		})
	}
	for _, p := range o.params {
		params = append(params, object{"name": p.name, "in": "query", "type": p.typ, "uniqueItems": true, "description": p.description})
	}
	responses := object{"401": object{"description": codeText["401"]}}
	for _, c := range o.codes {
		resp := object{"description": codeText[c]}
		if o.resultModel != "" {
			roots[o.resultModel] = true
			resp["schema"] = object{"$ref": "#/definitions/" + o.resultModel}
		} else {
			resp["schema"] = object{"type": "string"}
		}
		responses[c] = resp
	}
	consumes := o.consumes
	if consumes == nil {
		consumes = []string{"*/*"}
	}
	return o.common(object{
		"parameters": params, "responses": responses, "consumes": consumes, "produces": o.produces, "schemes": []string{"https"},
	})
}

func (s *Spec) jsonV3(gv string) ([]byte, error) {
	d, err := load(embeddedV3, s.groups[gv])
	if err != nil {
		return nil, err
	}
	paths, roots := object{}, map[string]bool{}
	for _, r := range s.groups[gv] {
		for _, p := range pathsOf(r, d) {
			item, _ := paths[p.template].(object)
			if item == nil {
				params := []object{}
				for _, v := range pathVariables(p) {
					params = append(params, object{
						"name": v.name, "in": "path", "required": true, "description": v.description, "schema": object{"type": "string", "uniqueItems": true},
					})
				}
				item = object{"parameters": params}
				paths[p.template] = item
			}
			for _, o := range p.operations {
				item[o.method] = o.v3(roots)
			}
		}
	}
	return json.Marshal(object{
		"openapi": "3.0.0", "info": s.info(), "paths": paths,
		"components": object{
			"schemas": d.closure(roots),
			"securitySchemes": object{"BearerToken": object{
				"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
			}},
		},
	})
}

func (o operation) v3(roots map[string]bool) object {
	content := func(model string, types []string) object {
		sch := object{"type": "string"}
		if model != "" {
			roots[model] = true
			sch = object{"$ref": "#/components/schemas/" + model}
		}
		out := object{}
		for _, t := range types {
			out[t] = object{"schema": sch}
		}
		return out
	}
	out := object{}
	params := []object{}
	for _, p := range o.params {
		params = append(params, object{"name": p.name, "in": "query", "description": p.description, "schema": object{"type": p.typ, "uniqueItems": true}})
	}
	if len(params) > 0 {
		out["parameters"] = params
	}
	if o.bodyModel != "" {
		types := o.consumes
		if types == nil {
			types = []string{"*/*"}
		}
		body := object{"content": content(o.bodyModel, types)}
		if o.bodyModel != modelDeleteOptions {
			body["required"] = true
		}
		out["requestBody"] = body
	}
	responses := object{"401": object{"description": codeText["401"]}}
	for _, c := range o.codes {
		responses[c] = object{"description": codeText[c], "content": content(o.resultModel, o.produces)}
	}
	out["responses"] = responses
	if o.action == "list" {
		roots[modelWatchEvent] = true
	}
	return o.common(out)
}

func (s *Spec) protoV2(raw []byte) ([]byte, error) {
	doc, err := openapi_v2.ParseDocument(raw)
	if err != nil {
		return nil, fmt.Errorf("openapi: v2 document: %w", err)
	}
	return proto.Marshal(doc)
}

func (s *Spec) protoV3(raw []byte) ([]byte, error) {
	doc, err := openapi_v3.ParseDocument(raw)
	if err != nil {
		return nil, fmt.Errorf("openapi: v3 document: %w", err)
	}
	return proto.Marshal(doc)
}
