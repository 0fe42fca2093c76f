// Program dashboard-check holds Grafana dashboards against the schema in Grafana's own SDK: fields that it does not know, required ones
// that are missing, wrong types, values out of range, and panels and queries of an unknown type. It prints each fault with its file and panel.
//
// usage: dashboard-check FILE…
// ends with 1 if any file has a fault
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

var faulty bool

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboard-check FILE…")
		os.Exit(2)
	}
	plugins.RegisterDefaultPlugins()
	for _, file := range os.Args[1:] {
		checkFile(place(file))
	}
	if faulty {
		os.Exit(1)
	}
}

// object is JSON that is taken apart one level deep: the SDK gets what it checks well, and the rest is checked here.
type object map[string]json.RawMessage

// place is what a fault is reported with: a file, or a file and a panel.
type place string

func (in place) report(path string, err error) {
	if err == nil {
		return
	}
	// The SDK's error for what is good is a list of none, not nil. Without a path its texts begin with what would follow one.
	for _, fault := range cog.MakeBuildErrors(path, err) {
		fmt.Printf("%s: %s\n", in, strings.TrimLeft(fault.Error(), ".: "))
		faulty = true
	}
}

// decode is for what may be absent.
func (in place) decode(path string, raw json.RawMessage, into any) {
	if raw != nil {
		in.report(path, json.Unmarshal(raw, into))
	}
}

// check decodes a part strictly, and holds what it could decode against the limits of the schema.
func (in place) check(path string, part any, into interface {
	UnmarshalJSONStrict([]byte) error
	Validate() error
}) {
	raw, err := json.Marshal(part)
	in.report(path, err)
	err = into.UnmarshalJSONStrict(raw)
	in.report(path, err)
	if err == nil || err.Error() == "" {
		in.report(path, into.Validate())
	}
}

func checkFile(file place) {
	raw, err := os.ReadFile(string(file))
	if err != nil {
		file.report("", err)
		return
	}
	var whole object
	if err := json.Unmarshal(raw, &whole); err != nil {
		file.report("", err)
		return
	}
	checkPanels(file, whole["panels"])
	delete(whole, "panels")
	file.check("", whole, &dashboard.Dashboard{})
}

func checkPanels(file place, raw json.RawMessage) {
	var panels []object
	file.decode("panels", raw, &panels)
	for i, panel := range panels {
		// What is wrong with these two the SDK reports.
		var title, kind string
		_ = json.Unmarshal(panel["title"], &title)
		_ = json.Unmarshal(panel["type"], &kind)
		in := place(fmt.Sprintf("%s: panel %q", file, title))
		if title == "" {
			in = place(fmt.Sprintf("%s: panel %d, which has no title", file, i+1))
		}
		if kind == "row" {
			checkRow(file, in, panel)
		} else {
			checkPanel(in, kind, panel)
		}
	}
}

func checkRow(file, in place, row object) {
	if panels, has := row["panels"]; has {
		checkPanels(file, panels)
		row["panels"] = json.RawMessage("[]")
	}
	in.check("", row, &dashboard.RowPanel{})
}

func checkPanel(in place, kind string, panel object) {
	// The SDK takes a panel of an unknown type as it is.
	variant, known := cog.ConfigForPanelcfgVariant(kind)
	if !known && kind != "" {
		in.report("type", fmt.Errorf("no panel has the type %q", kind))
	}

	// Of this the SDK, given a whole panel, checks no more than `custom`.
	if config, has := panel["fieldConfig"]; has {
		in.check("fieldConfig", config, &dashboard.FieldConfigSource{})
		var typed struct {
			Defaults struct{ Custom json.RawMessage }
		}
		_ = json.Unmarshal(config, &typed)
		if typed.Defaults.Custom != nil && variant.StrictFieldConfigUnmarshaler != nil {
			_, err := variant.StrictFieldConfigUnmarshaler(typed.Defaults.Custom)
			in.report("fieldConfig.defaults.custom", err)
		}
	}

	// A query has the data source of its panel where it names none, which the SDK overlooks: it would then take any query as it is.
	var queries []json.RawMessage
	in.decode("targets", panel["targets"], &queries)
	for i, raw := range queries {
		var query object
		_ = json.Unmarshal(raw, &query)
		source := sourceType(query)
		if source == "" {
			source = sourceType(panel)
		}
		decoded, err := cog.StrictUnmarshalDataquery(raw, source)
		in.report(fmt.Sprintf("targets[%d]", i), err)
		if _, unknown := decoded.(variants.UnknownDataquery); unknown {
			in.report(fmt.Sprintf("targets[%d]", i), fmt.Errorf("no data source has the type %q", source))
		}
	}

	delete(panel, "fieldConfig")
	delete(panel, "targets")
	in.check("", panel, &dashboard.Panel{})
}

// sourceType is the type of the data source that a panel or a query names itself.
func sourceType(of object) string {
	var source struct{ Type string }
	_ = json.Unmarshal(of["datasource"], &source)
	return source.Type
}
