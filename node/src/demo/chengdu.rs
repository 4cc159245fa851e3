//! A small part of Chengdu: streets and communities with their statistical codes; the
//! neighbourhoods are invented.

use super::tree::Tree;

pub struct Street {
    pub segment: &'static str,
    pub name: &'static str,
    pub code: &'static str,
    pub communities: [Community; 2],
}

pub struct Community {
    pub segment: &'static str,
    pub name: &'static str,
    pub code: &'static str,
    /// Segment and name.
    pub neighbourhoods: [(&'static str, &'static str); 2],
}

pub const CITY: (&str, &str, &str) = ("chengdu", "成都市", "5101");

/// In the order in which a growing tree takes them.
pub const STREETS: [Street; 4] = [
    Street {
        segment: "liucheng",
        name: "柳城街道",
        code: "510115001",
        communities: [
            Community {
                segment: "guanghua",
                name: "光华社区",
                code: "510115001044",
                neighbourhoods: [("shili-guanghua", "十里光华"), ("guanghua-xincheng", "光华新城")],
            },
            Community {
                segment: "daxuecheng",
                name: "大学城社区",
                code: "510115001045",
                neighbourhoods: [("xuefu-yuan", "学府苑"), ("liulin-ju", "柳林居")],
            },
        ],
    },
    Street {
        segment: "erxianqiao",
        name: "二仙桥街道",
        code: "510108007",
        communities: [
            Community {
                segment: "xiajiancao",
                name: "下涧槽社区",
                code: "510108007003",
                neighbourhoods: [("jiche-yuan", "机车苑"), ("jiancao-li", "涧槽里")],
            },
            Community {
                segment: "changlinpan",
                name: "长林盘社区",
                code: "510108007006",
                neighbourhoods: [("linpan-yuan", "林盘苑"), ("changlin-ju", "长林居")],
            },
        ],
    },
    Street {
        segment: "wangjianglu",
        name: "望江路街道",
        code: "510107004",
        communities: [
            Community {
                segment: "guojiaqiao",
                name: "郭家桥社区",
                code: "510107004004",
                neighbourhoods: [("wangjiang-yuan", "望江苑"), ("guojiaqiao-beiyuan", "郭家桥北苑")],
            },
            Community {
                segment: "gonghelu",
                name: "共和路社区",
                code: "510107004002",
                neighbourhoods: [("gonghe-li", "共和里"), ("jinjiang-ju", "锦江居")],
            },
        ],
    },
    Street {
        segment: "mengzhuiwan",
        name: "猛追湾街道",
        code: "510108002",
        communities: [
            Community {
                segment: "wangping",
                name: "望平社区",
                code: "510108002005",
                neighbourhoods: [("wangping-li", "望平里"), ("binhe-yuan", "滨河苑")],
            },
            Community {
                segment: "xianghe-li",
                name: "祥和里社区",
                code: "510108002006",
                neighbourhoods: [("xianghe-yuan", "祥和苑"), ("shuanglin-ju", "双林居")],
            },
        ],
    },
];

/// As many streets as `nodes_max` has room for, at least two.
pub fn tree(nodes_max: usize) -> Tree {
    let (segment, name, code) = CITY;
    let mut tree = Tree::new(segment, name, code);
    let streets = (nodes_max.saturating_sub(1) / super::tree::NODES_PER_STREET).clamp(2, STREETS.len());
    for street in &STREETS[..streets] {
        let s = tree.add(0, street.segment, street.name, street.code);
        for community in &street.communities {
            let c = tree.add(s, community.segment, community.name, community.code);
            for (segment, name) in community.neighbourhoods {
                tree.add(c, segment, name, "");
            }
        }
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::Tier;

    #[test]
    fn a_communitys_code_begins_with_its_streets() {
        for street in &STREETS {
            assert!(street.code.starts_with("5101") && street.code.len() == 9);
            for community in &street.communities {
                assert!(community.code.starts_with(street.code) && community.code.len() == 12, "{}", community.name);
            }
        }
    }

    #[test]
    fn the_tree_grows_by_streets_and_has_two_of_everything() {
        for (nodes_max, nodes) in [(0, 15), (15, 15), (22, 22), (64, 29)] {
            let tree = tree(nodes_max);
            assert_eq!(tree.places.len(), nodes);
            assert_eq!(tree.of_tier(Tier::Neighbourhood).count(), (nodes - 1) / 7 * 4);
        }
    }
}
